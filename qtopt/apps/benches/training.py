"""Gradient steps per second of the compact network: the whole pipeline beside the bare update, and both precisions."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.apps.benches.episodes import COMPACT_PX, make_episode
from qtopt.apps.benches.measure import Line, Settings, line, rates
from qtopt.apps.benches.servers import label_all, serving
from qtopt.loops.train import Trained, TrainLoopConfig, train
from qtopt.types import LabelledBatch

_EPISODES = 200
_LOOP = TrainLoopConfig(checkpoint_every_s=1e9)
_TURNS = 5


def measure(settings: Settings) -> list[Line]:
    """Measures whole updates: crop, augmentation, forward, backward, optimiser, both averages."""
    config = LearnerConfig()
    rng = np.random.default_rng(settings.seed)
    with tempfile.TemporaryDirectory(dir=".") as directory, serving(Path(directory), COMPACT_PX) as (connection, _):
        for _ in range(_EPISODES):
            connection.replay.append(make_episode(rng))
        label_all(connection, _EPISODES)
        batch = connection.replay.sample_labelled(config.batch, 10.0)
        learners = [Learner(config, settings.seed) for _ in range(2)]
        steps = train(
            connection.replay,
            learners[0],
            connection.model,
            lambda: Path(directory),
            batch_size=config.batch,
            config=_LOOP,
        )
        pipeline = _pipeline(steps, learners[1], batch, settings)
        steps.close()  # type: ignore[attr-defined]
    return [pipeline, _precision(config, batch, settings)]


def _pipeline(steps: Iterator[Trained], bare: Learner, batch: LabelledBatch, settings: Settings) -> Line:
    for _ in range(5):
        next(steps)
        bare.update(batch)
    waited, piped, alone = 0.0, [], []
    for _ in range(_TURNS):
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < settings.seconds / _TURNS:
            turn = next(steps)
            count += bool(turn.figures)
            waited += turn.wait_s
        piped.append(count / (time.perf_counter() - started))
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < settings.seconds / _TURNS:
            bare.update(batch)
            count += 1
        alone.append(count / (time.perf_counter() - started))
    config = bare.config
    return line(
        "train",
        statistics.median(piped),
        statistics.median(alone),
        "gradient steps/s",
        f"trainer's loop fed by a server over gRPC, networks published, compact network, batch {config.batch}",
        "the same update on one fixed batch, in the same process",
        batch=config.batch,
        threads=settings.threads,
        waited_s=round(waited, 3),
    )


def _precision(config: LearnerConfig, batch: LabelledBatch, settings: Settings) -> Line:
    chosen = Learner(config, settings.seed)
    in_bfloat16 = chosen.theta1.in_bfloat16
    other = replace(config, network=replace(config.network, precision="float32" if in_bfloat16 else "bfloat16"))
    learners = (chosen, Learner(other, settings.seed))

    def step(learner: Learner) -> float:
        learner.update(batch)
        return 1.0

    ours, reference = rates(lambda: step(learners[0]), lambda: step(learners[1]), settings.seconds)
    return line(
        "train precision",
        ours,
        reference,
        "gradient steps/s",
        f"precision auto, here {'bfloat16' if in_bfloat16 else 'float32'}",
        f"precision {other.network.precision}",
        batch=config.batch,
        threads=settings.threads,
    )
