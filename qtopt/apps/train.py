"""The trainer's process."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from qtopt.agent.device import resolve_device
from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.apps.metrics import MetricsConfig, expose
from qtopt.apps.process import begin, limit_threads, logger
from qtopt.apps.reporting import Reporting
from qtopt.config import STRICT, differences, to_plain
from qtopt.errors import CheckpointError, ConfigError
from qtopt.interfaces import ModelSource
from qtopt.loops.checkpoints import POLICY_FILE, Checkpoints, find_checkpoint
from qtopt.loops.metrics import Clock, Rate, Recent
from qtopt.loops.train import Trained, TrainLoopConfig, train
from qtopt.rpc.connection import connect
from qtopt.rpc.settings import ClientConfig


@dataclass(frozen=True)
class Config:
    """The trainer: gradient steps from labelled transitions, publication, checkpoints.

    Attributes:
        server: where labels come from and networks are published (--server host:port).
        checkpoints: directory that checkpoints are written to.
        resume: go on from the newest checkpoint there, if there is one.
        start: policy to go on from, a checkpoint or a run's directory or the word pretrained, with a fresh optimiser
            and from step 0; where there is a checkpoint to resume, that one counts.
        seed: of the first weights and of augmentation; a resumed run goes on with its own.
        threads: threads of torch.
        device: of torch; auto takes a GPU where there is one.
        learner: network, loss, optimiser, averages.
        loop: publication and checkpoints.
        metrics: where Prometheus finds this process's figures.
    """

    __pydantic_config__ = STRICT

    server: ClientConfig = field(default_factory=ClientConfig)
    checkpoints: Path = Path("outputs/trainer/checkpoints")
    resume: bool = False
    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    seed: int = 0
    threads: int = 1
    device: str = "auto"
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    loop: TrainLoopConfig = field(default_factory=TrainLoopConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)


def build_learner(config: Config) -> Learner:
    """Returns the learner to train: restored where asked for, with the settings given now, else begun."""
    earlier = sorted(path.name for path in config.checkpoints.glob("[0-9]*"))
    if earlier and not config.resume:
        raise CheckpointError(
            f"{config.checkpoints}: found checkpoints up to step {int(earlier[-1])}, expected none of another learner; "
            "add --resume to go on from there, or give another directory"
        )
    if not earlier and config.start is not None:
        payload = (find_checkpoint(config.start) / POLICY_FILE).read_bytes()
        return Learner.from_policy(payload, config.learner, config.seed, resolve_device(config.device))
    if not earlier:
        return Learner(config.learner, config.seed, resolve_device(config.device))
    learner = Learner.restore(find_checkpoint(config.checkpoints), resolve_device(config.device))
    if learner.config != config.learner:
        differing = differences(to_plain(config.learner), to_plain(learner.config), "learner")
        raise CheckpointError(
            f"{config.checkpoints}: found a learner that differs from the one asked for: {differing}; "
            "expected the same; resume with the settings of the first run, or give another directory"
        )
    return learner


def require_no_later(models: ModelSource, step: int, checkpoints: Path) -> None:
    """Raises ConfigError where there are networks of a later step than one that nothing in ``checkpoints`` leads to.

    A trainer that has a checkpoint may have published what it did since then, and lost that; one that has none would
    replace what all robots act with by networks that have learned less.
    """
    newest = models.latest()
    if newest is not None and newest.step > step:
        raise ConfigError(
            f"{checkpoints}: found no checkpoint, and on the server networks of step {newest.step}, which this trainer "
            f"would replace by those of step {step} for everybody; expected a checkpoint to go on from: bring the "
            "directory back, or say --loop.may-fall-back (qtopt run: --train.may-fall-back) to begin anew all the same"
        )


def main(config: Config, figures: "Figures | None" = None) -> int:
    """Runs the trainer until it is told to stop or has done its steps; ``figures`` take each step in."""
    stop = begin("trainer")
    limit_threads(config.threads)
    checkpoints = Checkpoints(config.checkpoints, config.loop.keep_checkpoints)
    learner, anew = build_learner(config), not checkpoints.all()
    if anew and config.resume:
        logger().warning(f"no checkpoint in {config.checkpoints}; beginning at step {learner.step}")
    with connect(config.server) as remote:
        if anew and not config.loop.may_fall_back:
            require_no_later(remote.model, learner.step, config.checkpoints)
        logger().info("training", step=learner.step)
        reporting = Reporting(remote.monitor, "trainer", figures or Figures(), disk=config.checkpoints)
        turns = train(
            remote.replay,
            learner,
            remote.model,
            lambda: checkpoints.save(learner.step, learner.save),
            batch_size=learner.config.batch,
            config=config.loop,
            resumed=not anew,
            stop=stop,
        )
        with expose(config.metrics, reporting.role, reporting.figures):
            for turn in turns:
                reporting.take(turn)
    logger().info("trainer ended", step=learner.step)
    return 0


class Figures:
    """Sums up the loop's turns."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock, self._published_s = clock, 0.0
        self._steps = Rate()
        self._means: dict[str, Recent] = {}
        self._step = self._version = 0

    def add(self, turn: Trained) -> None:
        """Takes what one turn did."""
        self._step = turn.step
        if turn.published is not None:
            self._version, self._published_s = turn.published, self._clock()
        if turn.checkpoint is not None:
            logger().info("checkpoint", step=turn.step, directory=str(turn.checkpoint))
        timing = {"wait_ms": 1e3 * turn.wait_s}
        if turn.figures:
            self._steps.add()
            age = {"label_age_s": turn.label_age_s, "label_lag": turn.label_lag}
            timing |= {"step_ms": 1e3 * turn.compute_s, **age, **turn.figures}
        for name, value in timing.items():
            self._means.setdefault(name, Recent(100)).add(value)

    def figures(self) -> dict[str, float]:
        """Returns the newest figures."""
        means = {name: recent.mean() for name, recent in self._means.items()}
        own = {"step": self._step, "steps_per_s": self._steps.per_s(), "published_version": self._version}
        if self._version:
            own["policy_age_s"] = self._clock() - self._published_s
        return {name: value for name, value in (own | means).items() if not math.isnan(value)}
