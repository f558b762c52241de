"""Small, legal random values for the agent's tests."""

import numpy as np

from qtopt.agent.images import ImageConfig
from qtopt.agent.network import NetworkConfig
from qtopt.config import CameraConfig
from qtopt.specs import make_action
from qtopt.types import LabelledBatch, Observations

TINY = NetworkConfig(
    kind="compact",
    image=ImageConfig(stored_px=36, crop_px=32, photometric=0.5),
    camera=CameraConfig(size_px=36),
    width=8,
    precision="float32",
)
SMALL_PAPER = NetworkConfig(kind="paper", image=ImageConfig(stored_px=236, crop_px=236), precision="float32")


def observations(rng: np.random.Generator, batch: int, size_px: int) -> Observations:
    return Observations(
        rng.integers(0, 256, (batch, size_px, size_px, 3), dtype=np.uint8),
        rng.random(batch) < 0.5,
        rng.uniform(0, 0.2, batch).astype(np.float32),
    )


def labelled_batch(rng: np.random.Generator, batch: int = 8, size_px: int = 36) -> LabelledBatch:
    actions = [make_action(tuple(rng.uniform(-0.08, 0.08, 3)), float(rng.uniform(-1.5, 1.5))) for _ in range(batch)]
    pose = np.column_stack(
        [rng.uniform(0.5, 0.7, batch), rng.uniform(-0.1, 0.1, batch), rng.uniform(0, 0.2, (batch, 2))]
    )
    return LabelledBatch(
        np.arange(batch),
        observations(rng, batch, size_px),
        np.array(actions),
        pose.astype(np.float32),
        rng.random(batch).astype(np.float32),
        np.ones(batch, np.int64),
        np.zeros(batch, np.float32),
    )
