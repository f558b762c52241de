"""A collector's process on a simulated arm."""

import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from qtopt.agent.cem import CemConfig
from qtopt.agent.exploration import ExplorationConfig, ExploringPolicy, ScriptedPolicy
from qtopt.agent.policy import CemPolicy
from qtopt.agent.snapshot import load_policy_network
from qtopt.apps.collected import Figures
from qtopt.apps.metrics import MetricsConfig, expose
from qtopt.apps.process import begin, limit_threads, logger
from qtopt.apps.reporting import Reporting
from qtopt.config import STRICT
from qtopt.interfaces import Policy
from qtopt.loops.checkpoints import POLICY_FILE, find_checkpoint
from qtopt.loops.collect import CollectLoopConfig, Follower, collect
from qtopt.loops.outbox import Outbox
from qtopt.rpc.connection import connect
from qtopt.rpc.settings import ClientConfig
from qtopt.types import ModelSnapshot
from robot_bridge.spool import Spool
from sim.config import SimConfig


@dataclass(frozen=True)
class Config:
    """A collector: runs grasp episodes on a simulated arm with the newest policy.

    Attributes:
        server: where episodes go and policies come from (--server host:port).
        name: stored with each episode; different for each collector.
        spool: directory that keeps finished episodes while the server is away.
        start: policy to act with until the server has networks: a checkpoint or a run's directory or the word
            pretrained; the script then keeps only its last share. Without it the script acts alone at first.
        seed: of scenes and exploration.
        session: changes the chance under one seed. A collector that is started again with the same spool needs no
            other one: it counts its starts there.
        threads: threads of torch.
        sim: the simulated cell.
        exploration: which policy acts when.
        cem: sizes of the search for the best action.
        loop: how long to go on.
        metrics: where Prometheus finds this process's figures.
    """

    __pydantic_config__ = STRICT

    server: ClientConfig = field(default_factory=ClientConfig)
    name: str = "sim-0"
    spool: Path = Path("outputs/spool")
    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    seed: int = 0
    session: int = 0
    threads: int = 1
    sim: SimConfig = field(default_factory=SimConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    cem: CemConfig = field(default_factory=CemConfig)
    loop: CollectLoopConfig = field(default_factory=CollectLoopConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        self.sim.require_training_objects()


def build_policy(config: Config, snapshot: ModelSnapshot | None) -> Policy:
    """Returns the policy that collects with the networks of ``snapshot``, or before there are any."""
    exploration = config.exploration if config.start is None else config.exploration.without_scripted_phase()
    scripted = ScriptedPolicy(exploration.scripted)
    if snapshot is None:
        return ExploringPolicy(scripted, None, exploration)
    learned = CemPolicy(load_policy_network(snapshot.payload), config.cem)
    return ExploringPolicy(scripted, learned, exploration, snapshot.step)


def first_policy(config: Config) -> Policy:
    """Returns the policy that collects until the server has networks: the script, or the one to start from."""
    if config.start is None:
        return build_policy(config, None)
    payload = (find_checkpoint(config.start) / POLICY_FILE).read_bytes()
    return build_policy(config, ModelSnapshot(0, 0, payload, hashlib.sha256(payload).hexdigest()))


def main(config: Config) -> int:
    """Runs a collector until it is told to stop or has collected its episodes."""
    stop = begin(f"collector/{config.name}")
    from sim import make_environment

    limit_threads(config.threads)
    with (
        contextlib.closing(Spool(config.spool)) as spool,
        connect(config.server, 2 * (config.sim.camera.size_px,)) as remote,
        contextlib.ExitStack() as parts,
    ):
        rng = np.random.default_rng([config.seed, config.session, spool.openings])
        environment = make_environment(config.sim)
        outbox = Outbox(remote.replay, spool)
        figures = Figures()
        reporting = Reporting(remote.monitor, f"collector/{config.name}", figures, disk=config.spool)
        parts.enter_context(expose(config.metrics, reporting.role, reporting.figures))
        follower = Follower(remote.model, lambda snapshot: build_policy(config, snapshot))
        try:
            for turn in collect(
                environment,
                first_policy(config),
                follower,
                outbox,
                rng,
                config=config.loop,
                name=config.name,
                facts={},
                stop=stop,
            ):
                reporting.take(turn)
            outbox.flush(limit=1000)
        finally:
            environment.close()
    logger().info("collector ended", episodes=int(figures.figures()["episodes"]), waiting=outbox.waiting)
    return 0
