"""Training from stored grasps alone: store, updater and trainer in one process, without collector and without gRPC."""

import concurrent.futures
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from qtopt.agent.cem import CemConfig
from qtopt.agent.device import resolve_device
from qtopt.agent.learner import LearnerConfig
from qtopt.agent.targets import TargetConfig
from qtopt.apps import label as updater
from qtopt.apps import train as trainer
from qtopt.apps.events import EventWriter
from qtopt.apps.live import finite
from qtopt.apps.process import StopSignal, begin, limit_threads, say
from qtopt.apps.rundir import RunDirectory
from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.loops.checkpoints import Checkpoints
from qtopt.loops.label import LabelLoopConfig, label
from qtopt.loops.metrics import Every
from qtopt.loops.train import Trained, TrainLoopConfig, train
from qtopt.replay import ReplayConfig
from qtopt.replay.episode_store import EpisodeStore
from qtopt.types import ModelSnapshot


@dataclass(frozen=True)
class Config:
    """Trains from a store alone, at full speed; evaluate the result with qtopt eval --checkpoint.

    Attributes:
        store: directory of the episode store; it is only read.
        output: directory for checkpoints, metrics and events; by default outputs/offline/<time>.
        resume: go on from the newest checkpoint in ``output``, which has to be given.
        start: policy to go on from, a checkpoint or a run's directory or the word pretrained, with a fresh optimiser.
        seed: of weights, sampling and search.
        device: of torch; auto takes a GPU where there is one.
        target: what a transition is labelled with: kind, discount, penalty, one or two networks.
        replay: sampling and labels.
        learner: network, loss, optimiser, averages.
        cem: sizes of the search for the best next action.
        label: labels made at once.
        train: length and checkpoints.
    """

    __pydantic_config__ = STRICT

    store: Path
    output: Path | None = None
    resume: bool = False
    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    seed: int = 0
    device: str = "auto"
    target: TargetConfig = field(default_factory=TargetConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    cem: CemConfig = field(default_factory=CemConfig)
    label: LabelLoopConfig = field(default_factory=LabelLoopConfig)
    train: TrainLoopConfig = field(default_factory=lambda: TrainLoopConfig(steps=10_000, publish_every_s=5.0))

    def __post_init__(self) -> None:
        if self.resume and self.output is None:
            raise ConfigError("offline: found --resume alone, expected --output too, the training to go on with")


class LocalModels:
    """The newest networks, from the trainer's thread to the updater's; a ModelSource and a ModelSink."""

    def __init__(self) -> None:
        self._newest: ModelSnapshot | None = None

    def publish(self, step: int, payload: bytes) -> int:
        """Takes new networks; returns their version."""
        version = 1 if self._newest is None else self._newest.version + 1
        self._newest = ModelSnapshot(version, step, payload, hashlib.sha256(payload).hexdigest())
        return version

    def latest(self, newer_than: int = 0) -> ModelSnapshot | None:
        """Returns the newest networks if they are newer than ``newer_than``."""
        newest = self._newest
        return newest if newest is not None and newest.version > newer_than else None


def main(config: Config) -> int:
    """Trains until the steps are done or it is told to stop."""
    stop = begin("offline")
    limit_threads(1)
    rng = np.random.default_rng(config.seed)
    with EpisodeStore(config.store, config=config.replay, rng=rng, read_only=True) as store:
        directory = (
            RunDirectory.create(Path("outputs"), "offline") if config.output is None else RunDirectory(config.output)
        )
        directory.prepare()
        directory.write_config(config)
        say(f"{store.stats()['episodes']:.0f} episodes in {config.store}; everything is written to {directory.root}")
        _train(config, store, directory, stop)
    say(f"checkpoint: {directory.checkpoints / 'last'}")
    return 128 + stop.number if stop() else 0


def _train(config: Config, store: EpisodeStore, directory: RunDirectory, stop: StopSignal) -> None:
    models, ended = LocalModels(), threading.Event()
    checkpoints = Checkpoints(directory.checkpoints, config.train.keep_checkpoints)
    learner = trainer.build_learner(
        trainer.Config(
            checkpoints=directory.checkpoints,
            resume=config.resume,
            start=config.start,
            seed=config.seed,
            device=config.device,
            learner=config.learner,
        )
    )
    labelling = updater.Config(device=config.device, target=config.target, cem=config.cem)
    generator = torch.Generator(resolve_device(config.device)).manual_seed(config.seed)
    made = updater.Figures()

    def make_labels() -> None:
        turns = label(
            store,
            store,
            models,
            lambda snapshot: updater.build_compute(labelling, generator, snapshot),
            config=config.label,
            stop=lambda: stop() or ended.is_set(),
        )
        for turn in turns:
            made.add(turn)

    turns = train(
        store,
        learner,
        models,
        lambda: checkpoints.save(learner.step, learner.save),
        batch_size=learner.config.batch,
        config=config.train,
        stop=lambda: stop() or worker.done(),
    )
    with concurrent.futures.ThreadPoolExecutor(1, "updater") as pool:
        worker = pool.submit(make_labels)
        try:
            _keep(turns, made, directory)
        finally:
            ended.set()
        worker.result()


def _keep(turns: Iterator[Trained], made: updater.Figures, directory: RunDirectory) -> None:
    """Runs the trainer's loop; writes metrics, events and a line for people every ten seconds."""
    figures, due, started = trainer.Figures(), Every(10.0), time.monotonic()
    events = EventWriter(directory.tensorboard)
    for turn in turns:
        figures.add(turn)
        if due.due() or turn.checkpoint is not None:
            row = {f"trainer/{name}": value for name, value in figures.figures().items()}
            row |= {f"updater/{name}": value for name, value in made.figures().items()}
            row = finite({"minutes": (time.monotonic() - started) / 60, **row})
            directory.append_metrics(row)
            events.scalars(row, turn.step)
            steps_per_s, loss = row["trainer/steps_per_s"], row.get("trainer/loss", float("nan"))
            labels = row.get("updater/labels_per_s", 0.0)
            say(f"step {turn.step}: {steps_per_s:.1f} steps/s, {labels:.0f} labels/s, loss {loss:.4f}")
    events.close()
