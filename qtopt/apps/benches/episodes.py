"""Episodes to measure stores with: the size of real ones, the content of none."""

import numpy as np

from qtopt.specs import make_action
from qtopt.types import Behaviour, Episode, EpisodeEnd, Outcome, new_episode_uuid

IMAGE_PX = 72
STEPS = 8


def make_episode(rng: np.random.Generator) -> Episode:
    """Returns an episode of eight steps with 72 px images of noise."""
    rows = STEPS + 1
    return Episode(
        uuid=new_episode_uuid(rng),
        images=rng.integers(0, 256, (rows, IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8),
        gripper_closed=rng.random(rows) < 0.5,
        height_to_bottom=rng.uniform(0, 0.2, rows).astype(np.float32),
        tool_pose=rng.uniform(0, 0.5, (rows, 4)).astype(np.float32),
        actions=np.stack([make_action(yaw_rad=float(rng.uniform(-1, 1))) for _ in range(STEPS)]),
        rewards=np.full(STEPS, -0.05, np.float32),
        behaviour=np.full(STEPS, Behaviour.SCRIPTED, np.uint8),
        end=EpisodeEnd.TERMINATED,
        outcome=Outcome.NOTHING_GRASPED,
        policy_version=0,
        collector="bench",
    )
