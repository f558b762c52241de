"""A Bellman updater's process."""

import math
import time
from dataclasses import dataclass, field

import torch

from qtopt.agent import targets
from qtopt.agent.cem import CemConfig
from qtopt.agent.device import resolve_device
from qtopt.agent.network import fold_batch_norm
from qtopt.agent.snapshot import unpack
from qtopt.agent.targets import TargetConfig
from qtopt.apps.metrics import MetricsConfig, expose
from qtopt.apps.process import begin, limit_threads, logger
from qtopt.apps.reporting import Reporting
from qtopt.config import STRICT
from qtopt.loops.label import Compute, Labelled, LabelLoopConfig, label
from qtopt.loops.metrics import Clock, Rate, Recent
from qtopt.rpc.connection import connect
from qtopt.rpc.settings import ClientConfig
from qtopt.types import ModelSnapshot, Targets, Transitions


@dataclass(frozen=True)
class Config:
    """A Bellman updater: labels stored transitions with the newest target networks; keeps no state.

    Attributes:
        server: where transitions come from and labels go (--server host:port).
        name: shown to people; different for each updater.
        seed: of the search's chance.
        threads: threads of torch.
        device: of torch; auto takes a GPU where there is one.
        target: what a transition is labelled with: kind, discount, penalty, one or two networks.
        cem: sizes of the search for the best next action.
        loop: batch size and pace.
        metrics: where Prometheus finds this process's figures.
    """

    __pydantic_config__ = STRICT

    server: ClientConfig = field(default_factory=ClientConfig)
    name: str = "0"
    seed: int = 0
    threads: int = 1
    device: str = "auto"
    target: TargetConfig = field(default_factory=TargetConfig)
    cem: CemConfig = field(default_factory=CemConfig)
    loop: LabelLoopConfig = field(default_factory=LabelLoopConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)


def build_compute(config: Config, generator: torch.Generator, snapshot: ModelSnapshot) -> Compute:
    """Returns the function that labels transitions with the networks of ``snapshot``."""
    networks, device = unpack(snapshot.payload), resolve_device(config.device)
    theta1, theta2 = (fold_batch_norm(network.to(device)) for network in (networks.theta1, networks.theta2))

    def compute(transitions: Transitions, version: int) -> Targets:
        return targets.label(
            theta1, theta2, transitions, version, config=config.target, cem=config.cem, generator=generator
        )

    return compute


def main(config: Config) -> int:
    """Runs a Bellman updater until it is told to stop."""
    stop = begin(f"updater/{config.name}")
    limit_threads(config.threads)
    generator = torch.Generator(resolve_device(config.device)).manual_seed(config.seed)
    with connect(config.server) as remote:
        reporting = Reporting(remote.monitor, f"updater/{config.name}", Figures())
        turns = label(
            remote.replay,
            remote.replay,
            remote.model,
            lambda snapshot: build_compute(config, generator, snapshot),
            config=config.loop,
            stop=stop,
        )
        with expose(config.metrics, reporting.role, reporting.figures):
            for turn in turns:
                reporting.take(turn)
    logger().info("updater ended")
    return 0


class Figures:
    """Sums up the loop's turns."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock, self._version_since_s = clock, 0.0
        self._labels, self._mean, self._version = Rate(), Recent(50), 0
        self._computing, self._waiting = Rate(), Rate()

    def add(self, turn: Labelled) -> None:
        """Takes what one turn did."""
        self._labels.add(turn.count)
        self._computing.add(turn.compute_s)
        self._waiting.add(turn.wait_s)
        if turn.model_version != self._version:
            self._version, self._version_since_s = turn.model_version, self._clock()
        if not math.isnan(turn.mean_target):
            self._mean.add(turn.mean_target)

    def figures(self) -> dict[str, float]:
        """Returns the newest figures."""
        busy, idle = self._computing.per_s(), self._waiting.per_s()
        values = {
            "labels": self._labels.total,
            "labels_per_s": self._labels.per_s(),
            "mean_target": self._mean.mean(),
            "model_version": float(self._version),
            "share_waiting": idle / max(1e-9, busy + idle),
        }
        if self._version:
            values["policy_age_s"] = self._clock() - self._version_since_s
        return {name: value for name, value in values.items() if not math.isnan(value)}
