"""The configuration of a whole run, and what follows from it for each process."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from qtopt.agent.cem import CemConfig
from qtopt.agent.exploration import ExplorationConfig
from qtopt.agent.learner import LearnerConfig
from qtopt.agent.targets import TargetConfig
from qtopt.apps import collect, evaluate, label, serve, train
from qtopt.apps.metrics import MetricsConfig
from qtopt.apps.rundir import RunDirectory
from qtopt.config import STRICT, differences, to_plain
from qtopt.errors import ConfigError
from qtopt.loops.label import LabelLoopConfig
from qtopt.loops.train import TrainLoopConfig
from qtopt.replay import LabelRingConfig, RateLimiterConfig, ReplayConfig
from qtopt.rpc.settings import ClientConfig, ServerConfig
from sim.config import SimConfig

STOP_PHASES = ((("collector", "updater", "evaluator", "final"), 2.5), (("trainer",), 4.0), (("server",), 2.0))
"""Who ends first, and how long it may take [s]: those who bring data before those who keep it."""


TWO_CORES = ReplayConfig(
    min_transitions=200,
    labels=LabelRingConfig(capacity=8_000, terminal_share=0.4),
    limiter=RateLimiterConfig(samples_per_insert=2.0, min_size=256, error_buffer=4096.0),
)
"""Values spread from the ends of episodes backwards, so ends are drawn twice as often as they occur, and labels are
renewed half as fast as they are learned from. The ring is small: at two samples a label and 64 a step, its oldest label
is 250 gradient steps old. With 25,000 labels collected success swung between 30 and 80 % from minute to minute."""


@dataclass(frozen=True)
class EvaluationPlan:
    """Evaluations during a run and after it.

    Attributes:
        every_s: time between the starts of two evaluations of the newest policy [s]; 0 for none.
        episodes: episodes of each of these, and of the scripted policy's at the start.
        final_episodes: episodes for the scripted and for the learned policy after training; 0 for none.
        seed: chooses the scenes during the run; the final evaluation's are seed + 1.
        processes: processes side by side in the final evaluation.
        nice: lowers the evaluator's priority during the run.
    """

    __pydantic_config__ = STRICT

    every_s: float = 240.0
    episodes: int = 30
    final_episodes: int = 200
    seed: int = 1000
    processes: int = 2
    nice: int = 5

    def __post_init__(self) -> None:
        if self.every_s < 0 or self.episodes < 1 or self.final_episodes < 0 or self.processes < 1:
            raise ConfigError(
                f"evaluation: every_s {self.every_s} and final_episodes {self.final_episodes} must not be negative, "
                f"episodes {self.episodes} and processes {self.processes} at least 1"
            )


@dataclass(frozen=True)
class Config:
    """Learn to grasp on this machine: server, updaters, trainer, evaluator and simulated collectors.

    Attributes:
        minutes: length of training, that before a resume included; the final evaluation comes after it [min].
        job: name of the folder under ``output``.
        output: where runs are kept.
        resume: directory of an earlier run to go on with; its configuration is the default of all other flags.
        grasps: collect so many, those before a resume included, then go on training with them; 0 for no limit.
        stored: a store, or a run with one, whose episodes are copied into this run's and marked as offline data.
        start: policy to go on from, a checkpoint or a run's directory or the word pretrained: its networks are trained
            on with a fresh optimiser, and it collects from the first grasp on instead of the script.
        seed: of everything.
        collectors: simulated arms.
        updaters: Bellman updaters.
        target: what a transition is labelled with: kind, discount, penalty, one or two networks.
        sim: the simulated cell.
        replay: store, sampling, labels.
        learner: network, loss, optimiser, averages.
        cem: sizes of the search for the best action, in labelling and acting alike.
        exploration: which policy collects when.
        label: pace of the updaters.
        train: publication and checkpoints.
        evaluation: during the run and after it.
        metrics: where Prometheus finds the server's figures; the other processes' ports count up from there, in the
            order trainer, updaters, collectors, evaluator.
    """

    __pydantic_config__ = STRICT

    minutes: float = 30.0
    job: str = "kuka"
    output: Path = Path("outputs")
    resume: Path | None = None
    grasps: int = 0
    stored: Path | None = None
    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    seed: int = 0
    collectors: int = 1
    updaters: int = 1
    target: TargetConfig = field(default_factory=TargetConfig)
    sim: SimConfig = field(default_factory=SimConfig)
    replay: ReplayConfig = TWO_CORES
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    cem: CemConfig = field(default_factory=CemConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    label: LabelLoopConfig = field(default_factory=LabelLoopConfig)
    train: TrainLoopConfig = field(default_factory=TrainLoopConfig)
    evaluation: EvaluationPlan = field(default_factory=EvaluationPlan)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        if not 0.0 < self.minutes < math.inf:
            raise ConfigError(f"minutes is {self.minutes}, expected a finite number above 0")
        if self.grasps < 0:
            raise ConfigError(f"grasps is {self.grasps}, expected 0 or more")
        self.sim.require_training_objects()
        if self.collectors < 0 or self.updaters < 1:
            raise ConfigError(
                f"found {self.collectors} collectors and {self.updaters} updaters, expected at least 0 and 1"
            )
        if not self.job or "/" in self.job:
            raise ConfigError(f"job is {self.job!r}, expected a name without slashes")
        limiter = self.replay.limiter
        if self.label.batch_size > limiter.insert_batch or self.learner.batch > limiter.sample_batch:
            raise ConfigError(
                f"label.batch_size is {self.label.batch_size} and learner.batch {self.learner.batch}, expected at most "
                f"replay.limiter.insert_batch ({limiter.insert_batch}) and sample_batch ({limiter.sample_batch}); "
                "larger batches could wait for ever, raise the limiter's too"
            )
        network = self.learner.network
        if self.sim.camera.size_px != network.image.stored_px:
            raise ConfigError(
                f"sim.camera.size_px is {self.sim.camera.size_px}, expected {network.image.stored_px}, the size of the "
                "network's images (learner.network.image.stored_px)"
            )
        if network.kind == "compact" and self.sim.cell.reach != network.reach:
            raise ConfigError(
                f"the cell's workspace is {self.sim.cell.reach}, expected {network.reach}, what the network takes it "
                "to be (learner.network.reach); give both the same"
            )
        if network.kind == "compact" and self.sim.camera != network.camera:
            raise ConfigError(
                f"sim.camera is {self.sim.camera}, expected {network.camera}, where the network takes it to be "
                "(learner.network.camera); give both the same"
            )


@dataclass(frozen=True)
class Role:
    """One process of a run: its name, its subcommand, its configuration and how far its priority is lowered."""

    name: str
    command: str
    config: Any
    nice: int = 0


def roles(config: Config, directory: RunDirectory, port: int, session: int) -> list[Role]:
    """Returns the processes of a run, in the order in which they start.

    Args:
        config: of the run.
        directory: of the run.
        port: of the server on loopback.
        session: counts the times that this run was started; keeps seeds from repeating.
    """
    server = ClientConfig(address=f"127.0.0.1:{port}", call_timeout_s=5.0, connect_timeout_s=60.0)
    seeds = [config.seed, session]
    planned = [
        Role(
            "server",
            "serve",
            serve.Config(
                listen=ServerConfig(port=port),
                store=directory.store,
                models=directory.models,
                seed=_mix(*seeds, 1),
                image_px=config.sim.camera.size_px,
                cem=config.cem,
                replay=config.replay,
            ),
        ),
        Role(
            "trainer",
            "train",
            train.Config(
                server=server,
                checkpoints=directory.checkpoints,
                resume=True,  # a trainer that died goes on from its newest checkpoint; a new run has none
                start=config.start,
                seed=config.seed,
                learner=config.learner,
                loop=config.train,
            ),
        ),
    ]
    for number in range(config.updaters):
        own = label.Config(
            server=server,
            name=str(number),
            seed=_mix(*seeds, 100 + number),
            target=config.target,
            cem=config.cem,
            loop=config.label,
        )
        planned.append(Role(f"updater-{number}", "label", own))
    for number in range(config.collectors):
        collector = collect.Config(
            server=server,
            name=f"sim-{number}",
            spool=directory.spool / f"sim-{number}",
            start=config.start,
            seed=_mix(config.seed, 1000 + number),
            session=session,
            sim=config.sim,
            exploration=config.exploration,
            cem=config.cem,
        )
        planned.append(Role(f"collector-{number}", "collect", collector))
    if config.evaluation.every_s > 0:
        evaluator = evaluate.Config(
            watch=True,
            scripted_first=session == 0,
            every_s=config.evaluation.every_s,
            episodes=config.evaluation.episodes,
            seed=config.evaluation.seed,
            output=directory.evaluations,
            best=directory.checkpoints / "best",
            server=server,
            sim=config.sim,
            scripted=config.exploration.scripted,
            cem=config.cem,
        )
        planned.append(Role("evaluator", "eval", evaluator, config.evaluation.nice))
    return [_with_metrics(role, config.metrics, number) for number, role in enumerate(planned)]


def _with_metrics(role: Role, first: MetricsConfig, number: int) -> Role:
    port = first.port + number if first.port else first.port
    return replace(role, config=replace(role.config, metrics=replace(first, port=port)))


def final_roles(config: Config, directory: RunDirectory) -> Mapping[str, list[Role]]:
    """Returns the processes of the final evaluation by policy: shards that run side by side."""
    shared = evaluate.Config(
        policy="scripted",
        episodes=config.evaluation.final_episodes,
        seed=config.evaluation.seed + 1,
        shards=config.evaluation.processes,
        output=directory.evaluations / "final",
        filmstrips=6,
        sim=config.sim,
        scripted=config.exploration.scripted,
        cem=config.cem,
    )
    planned: dict[str, list[Role]] = {"scripted": [], "learned": []}
    for shard in range(config.evaluation.processes):
        scripted = replace(shared, shard=shard, name=f"scripted-{shard}")
        learned = replace(
            shared, policy="learned", checkpoint=directory.checkpoints / "last", shard=shard, name=f"learned-{shard}"
        )
        planned["scripted"].append(Role(f"final-scripted-{shard}", "eval", scripted))
        planned["learned"].append(Role(f"final-learned-{shard}", "eval", learned))
    return planned


def require_same(config: Config, first: Config) -> None:
    """Raises ConfigError, naming each difference, unless a run configured as ``first`` can go on as ``config``."""
    for part, flag in (("learner", "learner"), ("seed", "seed"), ("start", "from")):
        differing = differences(to_plain(config)[part], to_plain(first)[part], f"--{flag}")
        if differing:
            raise ConfigError(f"{differing}: a run goes on as it began; leave the flag away, or begin another run")


def _mix(*numbers: int) -> int:
    """Returns a seed below 2**31 that depends on all of ``numbers``."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)
