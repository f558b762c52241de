"""Episodes that tell by themselves whether they are whole: all of an episode follows from its sender and number."""

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np

from qtopt.specs import make_action
from qtopt.types import Behaviour, Episode, EpisodeEnd, LabelledBatch, Outcome, Transitions, UInt8Array

_STAMP: Final = struct.Struct("<IIHH")
_MARK: Final = 0x5EA1


def numbered_episode(sender: int, number: int, image_px: int, steps: int | None = None) -> Episode:
    """Returns the episode of a sender with a number, the same wherever it is asked for.

    Every frame begins with a stamp of sender, number and step; the rest is noise drawn for this episode alone.

    Args:
        sender: who brings it.
        number: which of the sender's.
        image_px: height and width of the frames [px], 8 or more.
        steps: actions; None makes it 1 to 6 of them.
    """
    rng = np.random.default_rng([sender, number])
    steps = 1 + number % 6 if steps is None else steps
    images = rng.integers(0, 256, (steps + 1, image_px, image_px, 3), np.uint8)
    for step, image in enumerate(images):
        image.reshape(-1)[: _STAMP.size] = np.frombuffer(_STAMP.pack(sender, number, step, _MARK), np.uint8)
    return Episode(
        uuid=f"{sender:08x}{number:024x}",
        images=images,
        gripper_closed=rng.random(steps + 1) < 0.5,
        height_to_bottom=rng.random(steps + 1, np.float32),
        tool_pose=rng.random((steps + 1, 4), np.float32),
        actions=np.stack([make_action(yaw_rad=float(yaw)) for yaw in rng.uniform(-1, 1, steps)]),
        rewards=rng.random(steps, np.float32),
        behaviour=np.full(steps, Behaviour.NOISE, np.uint8),
        end=EpisodeEnd.TERMINATED,
        outcome=Outcome.SUCCESS if number % 3 == 0 else Outcome.NOTHING_GRASPED,
        policy_version=number,
        collector=f"drill-{sender}",
    )


class Checker:
    """Compares what was sampled with what was sent.

    Args:
        image_px: as in ``numbered_episode``.
    """

    def __init__(self, image_px: int) -> None:
        self._episode: Callable[[int, int], Episode] = lru_cache(2048)(
            lambda sender, number: numbered_episode(sender, number, image_px)
        )

    def torn_transitions(self, drawn: Transitions) -> int:
        """Returns how many transitions are not what was sent; terminal ones, which nothing follows, cannot be told."""
        torn = 0
        for row in np.flatnonzero(~drawn.terminal).tolist():
            found = self._find(drawn.next.image[row])
            torn += found is None or not (
                drawn.reward[row] == found[0].rewards[found[1] - 1]
                and drawn.next.height_to_bottom[row] == found[0].height_to_bottom[found[1]]
            )
        return torn

    def torn_labelled(self, drawn: LabelledBatch) -> int:
        """Returns how many labelled transitions are not what was sent."""
        torn = 0
        for row, image in enumerate(drawn.observation.image):
            found = self._find(image)
            torn += found is None or not (
                np.array_equal(drawn.action[row], found[0].actions[found[1]])
                and np.array_equal(drawn.tool_pose[row], found[0].tool_pose[found[1]])
            )
        return torn

    def _find(self, image: UInt8Array) -> tuple[Episode, int] | None:
        """Returns the episode and step that an image is of; None when it is of none."""
        sender, number, step, mark = _STAMP.unpack(image.reshape(-1)[: _STAMP.size].tobytes())
        if mark != _MARK:
            return None
        episode = self._episode(sender, number)
        if step > len(episode) or not np.array_equal(image, episode.images[step]):
            return None
        return episode, step
