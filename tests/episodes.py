"""Legal random episodes, drawn from the specs."""

from uuid import UUID

import numpy as np

from qtopt import specs
from qtopt.types import Behaviour, Episode, EpisodeEnd, Outcome


def make_episode(
    rng: np.random.Generator,
    steps: int = 5,
    *,
    size_px: int = 16,
    success: bool = True,
    policy_version: int = 0,
    uuid: str | None = None,
) -> Episode:
    """Returns an episode of ``steps`` actions whose arrays hold random legal values; images are (size_px, size_px)."""
    rewards = np.full(steps, -0.05, np.float32)
    rewards[-1] = float(success)
    actions = np.stack(
        [
            specs.make_action(
                tuple(rng.uniform(-0.05, 0.05, 3)), rng.uniform(-1.0, 1.0), close=bool(rng.random() < 0.5)
            )
            for _ in range(steps)
        ]
    )
    return Episode(
        uuid=UUID(bytes=rng.bytes(16), version=4).hex if uuid is None else uuid,
        images=rng.integers(0, 256, (steps + 1, size_px, size_px, 3), dtype=np.uint8),
        gripper_closed=rng.random(steps + 1) < 0.5,
        height_to_bottom=rng.uniform(0.0, 0.4, steps + 1).astype(np.float32),
        tool_pose=rng.uniform(-1.0, 1.0, (steps + 1, 4)).astype(np.float32),
        actions=actions,
        rewards=rewards,
        behaviour=np.full(steps, Behaviour.SCRIPTED, np.uint8),
        end=EpisodeEnd.TERMINATED,
        outcome=Outcome.SUCCESS if success else Outcome.NOTHING_GRASPED,
        policy_version=policy_version,
        collector="test",
        metadata={"seed": 7},
    )


def nested(depth):
    """Returns metadata of so many objects and arrays within each other."""
    value = {"[{": '[{"\\'}
    for _ in range(depth - 2):
        value = [value]
    return {"in": value}
