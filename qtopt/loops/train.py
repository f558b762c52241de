"""The trainer's loop: a gradient step for each labelled batch; publishes and saves as time passes."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from qtopt.config import STRICT
from qtopt.errors import ConfigError, RemoteError, ServerUnavailable, StoreError, StoreFull
from qtopt.interfaces import BatchSource, ModelSink
from qtopt.loops.metrics import Clock, Every
from qtopt.loops.retry import Duty, Prefetch, Setback, Stop, never
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
        may_fall_back: begin without a checkpoint although the server has networks of a later step, and replace them.
    """

    __pydantic_config__ = STRICT

    steps: int = 0
    publish_every_s: float = 10.0
    checkpoint_every_s: float = 60.0
    keep_checkpoints: int = 3
    timeout_s: float = 1.0
    prefetch: int = 2
    may_fall_back: bool = False

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
    resumed: bool = False,
    stop: Stop = never,
    clock: Clock = time.monotonic,
) -> Iterator[Trained]:
    """Trains until told to stop; saves and publishes at the start and the end.

    What is published has a checkpoint before it, so that a trainer without any knows that it has lost them: as long as
    none could be written, nothing is published.

    Whatever the server answers, its disk's faults and its own included, and a disk without room for a checkpoint, are
    borne: what could not be done is tried again, and said once.

    Args:
        batches: gives labelled transitions.
        learner: does the gradient steps.
        models: takes the networks to publish.
        save: writes a checkpoint, returns its directory; raises OSError without room.
        batch_size: labelled transitions of one gradient step.
        config: pace.
        resumed: whether there is a checkpoint already.
        stop: asked between steps.
        clock: measures where the time goes [s].

    Raises:
        AccessDenied: this role may not do this, and never could.
        OSError: there is no room for the checkpoint at the end.
    """
    has_checkpoint = resumed

    def save_first() -> Path:
        nonlocal has_checkpoint
        saved = save()
        has_checkpoint = True
        return saved

    def put() -> int:
        if not has_checkpoint:
            raise StoreFull("found no checkpoint of this trainer, expected one before its networks: make room for it")
        return models.publish(learner.step, learner.snapshot())

    publish = Duty("networks are not published", put, Every(config.publish_every_s, clock=clock))
    checkpoint = Duty("no checkpoint is written", save_first, Every(config.checkpoint_every_s, clock=clock))
    setback = Setback("no labels are fetched")
    saved, published = checkpoint.now(), publish.now()
    version = published or 0
    yield Trained(learner.step, {}, published=published, checkpoint=saved)
    with Prefetch(lambda: batches.sample_labelled(batch_size, config.timeout_s), config.prefetch) as ahead:
        while not stop() and not (config.steps and learner.step >= config.steps):
            started = clock()
            batch = _next(ahead, setback, stop)
            if batch is None and stop():
                break
            received = clock()
            turn = Trained(learner.step, {}, wait_s=received - started)
            if batch is None:  # nothing may be labelled before networks are published, and these wait for a checkpoint
                turn = replace(turn, checkpoint=checkpoint.if_owed())
            else:
                figures = learner.update(batch)
                turn = replace(
                    turn,
                    step=learner.step,
                    figures=figures,
                    label_age_s=float(batch.age_s.mean()),
                    label_lag=version - float(batch.model_version.mean()),
                    compute_s=clock() - received,
                    checkpoint=checkpoint.if_due(),
                )
            published = publish.if_due()
            version = published or version
            yield replace(turn, published=published)
        # Before the requests under way are waited for: who is told to stop is soon killed.
        yield Trained(learner.step, {}, checkpoint=save_first(), published=publish.now())


def _next(ahead: Prefetch[LabelledBatch], setback: Setback, stop: Stop) -> LabelledBatch | None:
    """Returns the next batch; None when told to stop, or, after a while, when there is none to be had."""
    if not ahead.comes(stop):
        return None
    try:
        batch = ahead.next()
    except ServerUnavailable:
        time.sleep(0.1)
        return None
    except (RemoteError, StoreError) as error:
        setback.bear(error)
        setback.wait(stop)
        return None
    setback.over()
    return batch
