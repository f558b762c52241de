"""The trainer's loop: a gradient step for each labelled batch; publishes and saves as time passes."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qtopt.config import STRICT
from qtopt.errors import ConfigError, ServerUnavailable
from qtopt.interfaces import BatchSource, ModelSink
from qtopt.loops.metrics import Clock, Every
from qtopt.loops.retry import Backoff, Prefetch, Stop, never
from qtopt.types import LabelledBatch


class Learns(Protocol):
    """What the loop needs of a learner; ``qtopt.agent.learner.Learner`` is one."""

    @property
    def step(self) -> int:
        """Gradient steps done."""
        ...

    def update(self, batch: LabelledBatch) -> dict[str, float]:
        """Does one gradient step; returns its figures."""
        ...

    def snapshot(self) -> bytes:
        """Returns the payload to publish."""
        ...


@dataclass(frozen=True)
class TrainLoopConfig:
    """How the trainer runs.

    Attributes:
        steps: gradient steps to do in all, those before a resume included; 0 trains until told to stop.
        publish_every_s: time between two publications [s].
        checkpoint_every_s: time between two checkpoints [s].
        keep_checkpoints: newest checkpoints kept.
        timeout_s: longest wait for a batch in one request [s].
        prefetch: requests for batches kept under way.
    """

    __pydantic_config__ = STRICT

    steps: int = 0
    publish_every_s: float = 10.0
    checkpoint_every_s: float = 60.0
    keep_checkpoints: int = 3
    timeout_s: float = 1.0
    prefetch: int = 2

    def __post_init__(self) -> None:
        if self.prefetch < 1 or self.keep_checkpoints < 1 or self.timeout_s <= 0:
            raise ConfigError(
                f"train: prefetch {self.prefetch}, keep_checkpoints {self.keep_checkpoints} and "
                f"timeout_s {self.timeout_s} must all be positive"
            )
        if self.steps < 0:
            raise ConfigError(f"train: steps is {self.steps}, expected 0 or more; 0 trains until told to stop")


@dataclass(frozen=True, slots=True)
class Trained:
    """What one turn of the loop did.

    Attributes:
        step: gradient steps done so far.
        figures: the learner's figures of this step; empty when there was no batch to be had.
        label_age_s: mean age of the labels used [s].
        label_lag: how many versions the labels' networks are behind the newest published, in the mean.
        wait_s: time waiting for the batch [s].
        compute_s: time of the gradient step [s].
        published: version given, when this turn published.
        checkpoint: directory written, when this turn saved.
    """

    step: int
    figures: Mapping[str, float]
    label_age_s: float = float("nan")
    label_lag: float = float("nan")
    wait_s: float = 0.0
    compute_s: float = 0.0
    published: int | None = None
    checkpoint: Path | None = None


def train(
    batches: BatchSource,
    learner: Learns,
    models: ModelSink,
    save: Callable[[], Path],
    *,
    batch_size: int,
    config: TrainLoopConfig,
    stop: Stop = never,
    clock: Clock = time.monotonic,
) -> Iterator[Trained]:
    """Trains until told to stop; publishes at the start and the end, saves at the end.

    Args:
        batches: gives labelled transitions.
        learner: does the gradient steps.
        models: takes the networks to publish.
        save: writes a checkpoint, returns its directory.
        batch_size: labelled transitions of one gradient step.
        config: pace.
        stop: asked between steps.
        clock: measures where the time goes [s].
    """
    publisher = _Publisher(models, learner)
    publish, checkpoint = Every(config.publish_every_s, clock=clock), Every(config.checkpoint_every_s, clock=clock)
    yield Trained(learner.step, {}, published=publisher.publish())
    with Prefetch(lambda: batches.sample_labelled(batch_size, config.timeout_s), config.prefetch) as ahead:
        while not stop() and not (config.steps and learner.step >= config.steps):
            started = clock()
            try:
                batch = ahead.next()
            except ServerUnavailable:
                time.sleep(0.1)
                yield Trained(learner.step, {}, wait_s=clock() - started, published=publisher.publish_if_due(publish))
                continue
            received = clock()
            figures = learner.update(batch)
            compute_s = clock() - received
            yield Trained(
                learner.step,
                figures,
                label_age_s=float(batch.age_s.mean()),
                label_lag=publisher.version - float(batch.model_version.mean()),
                wait_s=received - started,
                compute_s=compute_s,
                published=publisher.publish_if_due(publish),
                checkpoint=save() if checkpoint.due() else None,
            )
    yield Trained(learner.step, {}, checkpoint=save(), published=publisher.publish())


class _Publisher:
    """Publishes, and publishes again when the server was away or has lost what it had."""

    def __init__(self, models: ModelSink, learner: Learns) -> None:
        self._models, self._learner = models, learner
        self._backoff = Backoff()
        self._owed = True
        self.version = 0

    def publish(self) -> int | None:
        """Publishes now; returns the version, or None when nobody answered."""
        try:
            self.version = self._models.publish(self._learner.step, self._learner.snapshot())
        except ServerUnavailable:
            self._backoff.failed()
            self._owed = True
            return None
        self._backoff.succeeded()
        self._owed = False
        return self.version

    def publish_if_due(self, every: Every) -> int | None:
        """Publishes when the period has passed, or when the last attempt failed and it is time to try again."""
        if every.due() or (self._owed and self._backoff.ready()):
            return self.publish()
        return None
