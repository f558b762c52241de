"""Episodes to measure stores with: the size of real ones, the content of none."""

from dataclasses import replace

import cv2
import numpy as np

from qtopt.specs import make_action
from qtopt.types import Behaviour, Episode, EpisodeEnd, Outcome, UInt8Array, new_episode_uuid

COMPACT_PX, PAPER_PX = 72, 512
"""Sizes of the frames that both network profiles store; they are cropped to 64 and to 472 px."""
STEPS = 8
ROWS = STEPS + 1


def make_episode(rng: np.random.Generator, image_px: int = COMPACT_PX) -> Episode:
    """Returns an episode of eight steps whose frames compress like a camera's: smooth, with noise of 3 grey values."""
    return Episode(
        uuid=new_episode_uuid(),
        images=np.stack([_frame(rng, image_px) for _ in range(ROWS)]),
        gripper_closed=rng.random(ROWS) < 0.5,
        height_to_bottom=rng.uniform(0, 0.2, ROWS).astype(np.float32),
        tool_pose=rng.uniform(0, 0.5, (ROWS, 4)).astype(np.float32),
        actions=np.stack([make_action(yaw_rad=float(rng.uniform(-1, 1))) for _ in range(STEPS)]),
        rewards=np.full(STEPS, -0.05, np.float32),
        behaviour=np.full(STEPS, Behaviour.SCRIPTED, np.uint8),
        end=EpisodeEnd.TERMINATED,
        outcome=Outcome.NOTHING_GRASPED,
        policy_version=0,
        collector="bench",
    )


def again(episode: Episode) -> Episode:
    """Returns the same episode under another UUID, which makes it a new one."""
    return replace(episode, uuid=new_episode_uuid())


def _frame(rng: np.random.Generator, image_px: int) -> UInt8Array:
    coarse = rng.uniform(30, 225, (12, 12, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (image_px, image_px), interpolation=cv2.INTER_CUBIC)
    noisy = smooth + 3 * rng.standard_normal(smooth.shape, np.float32)
    frame: UInt8Array = np.clip(noisy, 0, 255).astype(np.uint8)
    return frame
