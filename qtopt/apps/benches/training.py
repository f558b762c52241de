"""Gradient steps per second of the compact network."""

from dataclasses import replace

import numpy as np

from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.apps.benches.measure import line, rates
from qtopt.specs import ACTION_SIZE
from qtopt.types import JsonValue, LabelledBatch, Observations


def measure(seconds: float, seed: int) -> dict[str, JsonValue]:
    """Measures whole updates: crop, augmentation, forward, backward, optimiser, both averages."""
    config = LearnerConfig()
    plain = replace(config, network=replace(config.network, precision="float32"))
    batch = _batch(config, np.random.default_rng(seed))
    learners = [Learner(config, seed), Learner(plain, seed)]

    def step(learner: Learner) -> float:
        learner.update(batch)
        return 1.0

    ours, reference = rates(lambda: step(learners[0]), lambda: step(learners[1]), seconds)
    return line(
        "train",
        ours,
        reference,
        "gradient steps/s",
        f"compact network, batch {config.batch}, precision {config.network.precision}",
        "the same update in float32",
        batch=config.batch,
        samples_per_s=round(ours * config.batch, 1),
    )


def _batch(config: LearnerConfig, rng: np.random.Generator) -> LabelledBatch:
    count, size = config.batch, config.network.image.stored_px
    return LabelledBatch(
        position=np.arange(count),
        observation=Observations(
            rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
            rng.random(count) < 0.5,
            rng.uniform(0, 0.2, count).astype(np.float32),
        ),
        action=rng.uniform(-0.05, 0.05, (count, ACTION_SIZE)).astype(np.float32),
        tool_pose=rng.uniform(0.4, 0.6, (count, 4)).astype(np.float32),
        target=rng.uniform(0, 1, count).astype(np.float32),
        model_version=np.ones(count, np.int64),
        age_s=np.zeros(count, np.float32),
    )
