"""Evaluation in a process of its own: of a checkpoint, of the scripted policy, or of whatever is newest."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from qtopt.agent.cem import CemConfig
from qtopt.agent.exploration import ScriptedConfig, ScriptedPolicy
from qtopt.agent.network import NetworkConfig
from qtopt.agent.policy import CemPolicy
from qtopt.agent.snapshot import load_policy_network, read_header
from qtopt.apps.process import StopSignal, begin, limit_threads, logger, say
from qtopt.apps.rundir import provenance
from qtopt.config import STRICT, to_plain
from qtopt.errors import ConfigError
from qtopt.interfaces import Policy
from qtopt.loops.checkpoints import POLICY_FILE, find_checkpoint
from qtopt.loops.collect import Follower
from qtopt.loops.evaluate import Evaluated, EvaluationConfig, evaluate
from qtopt.loops.report import Report, read_report, record, success_of_report
from qtopt.rpc.connection import connect
from qtopt.rpc.settings import ClientConfig
from qtopt.types import JsonValue
from sim.config import SimConfig

_BEST_FILE = "evaluation.json"


@dataclass(frozen=True)
class Config:
    """Success of a policy on fixed scenes, with its 95 % Wilson interval; greedy, on objects never trained on.

    Attributes:
        checkpoint: a checkpoint, or a run's directory for its newest one; leave away with --policy scripted or --watch.
        policy: which policy to evaluate.
        objects: ``unseen`` for figures to report; ``train`` needs --diagnose.
        diagnose: allow training objects; the result says that it is no figure to report.
        episodes: episodes to run.
        seed: chooses scenes and chance.
        episodes_per_scene: episodes run one after another before the bin is filled anew.
        shard: which of ``shards`` parts to run.
        shards: parts of the evaluation, run side by side.
        filmstrips: episodes drawn.
        output: directory for JSON and pictures; by default eval/ of the checkpoint's run.
        name: of the files written; made from policy, step and seed by default.
        watch: evaluate the newest published networks of --server again and again.
        every_s: with watch, time between the starts of two evaluations [s].
        server: with watch, where the networks come from (--server host:port).
        scripted_first: with watch, evaluate the scripted policy before anything else.
        best: with watch, directory that keeps the best networks seen.
        threads: threads of torch.
        sim: the simulated cell; its set of objects is replaced by ``objects``.
        scripted: the script's habits.
        cem: sizes of the search for the best action.
    """

    __pydantic_config__ = STRICT

    checkpoint: Path | None = None
    policy: Literal["learned", "scripted"] = "learned"
    objects: Literal["unseen", "train"] = "unseen"
    diagnose: bool = False
    episodes: int = 200
    seed: int = 0
    episodes_per_scene: int = 1
    shard: int = 0
    shards: int = 1
    filmstrips: int = 12
    output: Path | None = None
    name: str = ""
    watch: bool = False
    every_s: float = 180.0
    server: ClientConfig = field(default_factory=ClientConfig)
    scripted_first: bool = False
    best: Path | None = None
    threads: int = 1
    sim: SimConfig = field(default_factory=SimConfig)
    scripted: ScriptedConfig = field(default_factory=ScriptedConfig)
    cem: CemConfig = field(default_factory=CemConfig)

    def __post_init__(self) -> None:
        if self.objects == "train" and not self.diagnose:
            raise ConfigError(
                "objects is 'train': success on training objects is no figure to report; "
                "expected --objects unseen, or add --diagnose to look all the same"
            )
        if self.policy == "learned" and self.checkpoint is None and not self.watch:
            raise ConfigError("eval: found no checkpoint, expected --checkpoint PATH, --policy scripted or --watch")
        if self.policy == "scripted" and self.watch:
            raise ConfigError("eval: watch follows published networks, expected --policy learned with it")
        self.plan()

    def plan(self) -> EvaluationConfig:
        """Returns what to run."""
        return EvaluationConfig(self.episodes, self.seed, self.episodes_per_scene, self.shard, self.shards)


def main(config: Config) -> int:
    """Evaluates once, or again and again with ``watch``."""
    stop = begin("evaluator")
    limit_threads(config.threads)
    if config.watch:
        return _watch(config, stop)
    if config.policy == "scripted":
        output = config.output or Path("outputs/eval")
        report = _evaluate(config, ScriptedPolicy(config.scripted), 0, output, stop)
    else:
        checkpoint = find_checkpoint(config.checkpoint or Path())
        payload = (checkpoint / POLICY_FILE).read_bytes()
        network = load_policy_network(payload)
        _check_camera(network.config, config.sim)
        policy = CemPolicy(network, config.cem)
        step = int(read_header(payload)["step"])
        report = _evaluate(config, policy, step, config.output or checkpoint.parent.parent / "eval", stop)
    if stop():
        return 128 + stop.number
    say(describe(report))
    return 0


def _check_camera(network: NetworkConfig, cell: SimConfig) -> None:
    if network.image.stored_px != cell.camera.size_px:
        raise ConfigError(
            f"sim.camera.size_px is {cell.camera.size_px}, expected {network.image.stored_px}, the size of the images "
            "that the checkpoint was trained on"
        )
    if network.kind == "compact" and network.camera != cell.camera:
        raise ConfigError(
            f"sim.camera is {cell.camera}, expected {network.camera}, where the checkpoint's network takes it to be; "
            "give the run's own settings with --sim.camera.*"
        )


def describe(report: Report) -> str:
    """Returns the report in a few lines for people."""
    success = success_of_report(report)
    kinds = report["outcomes"] if isinstance(report["outcomes"], dict) else {}
    failures = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in kinds.items() if name != "success")
    note = "" if report["objects"] == "unseen" else "\nTRAINING OBJECTS: not a figure to report"
    return (
        f"{report['policy']} policy, step {report['step']}, {report['objects']} objects, seed {report['seed']}\n"
        f"success {success}, 95 % Wilson interval\nsteps per grasp {report['steps_per_grasp']}\n"
        f"failures: {failures}\nwritten to {report['file']}{note}"
    )


def _evaluate(config: Config, policy: Policy, step: int, output: Path, stop: StopSignal) -> Report:
    from sim import make_environment

    name = config.name or f"{config.policy}-{step:010d}-{config.objects}-seed{config.seed}"
    path = output / f"{name}.json"
    facts: dict[str, JsonValue] = {
        "policy": config.policy,
        "step": step,
        "objects": config.objects,
        "seed": config.seed,
        "file": str(path),
        "started": time.time(),
        "checkpoint": None if config.checkpoint is None else str(config.checkpoint),
        "sim": to_plain(config.sim),
        "provenance": {name: value for name, value in provenance().items()},
    }
    environment = make_environment(replace(config.sim, objects=config.objects))
    try:
        started = time.monotonic()
        report = record(
            _checked(config, evaluate(environment, policy, config=config.plan(), stop=stop)),
            path,
            facts,
            filmstrips=config.filmstrips,
            stop=stop,
        )
    finally:
        environment.close()
    seconds = round(time.monotonic() - started, 1)
    logger().info("evaluated", **{k: report[k] for k in ("policy", "step", "success", "episodes")}, seconds=seconds)
    return report


def _checked(config: Config, evaluated: Iterator[Evaluated]) -> Iterator[Evaluated]:
    for one in evaluated:
        found = one.episode.metadata.get("object_set")
        if config.objects == "unseen" and found != "unseen":
            raise ConfigError(
                f"the cell used the objects {found!r}, expected 'unseen': no figure to report comes of it"
            )
        if one.index % 20 == 19:
            logger().info("evaluating", episode=one.index + 1)
        yield one


def _watch(config: Config, stop: StopSignal) -> int:
    output = config.output or Path("outputs/eval")
    best = _success_of_best(config.best)
    if config.scripted_first:
        scripted = replace(config, policy="scripted", watch=False, name="")
        _evaluate(scripted, ScriptedPolicy(config.scripted), 0, output, stop)
    with connect(config.server) as remote:
        follower = Follower(remote.model, lambda snapshot: snapshot)
        while not stop():
            started = time.monotonic()
            if follower.refresh() and follower.current is not None:
                snapshot = follower.current
                policy = CemPolicy(load_policy_network(snapshot.payload), config.cem)
                report = _evaluate(replace(config, name=""), policy, snapshot.step, output, stop)
                success = report["success"]
                if not stop() and config.best is not None and isinstance(success, float) and success >= best:
                    best = success
                    _keep(snapshot.payload, report, config.best)
            stop.wait(max(1.0, config.every_s - (time.monotonic() - started)))
    return 0


def _success_of_best(directory: Path | None) -> float:
    """Returns the success of the networks kept as the best so far, by this process or one before it; 0 without any."""
    if directory is None or not (directory / _BEST_FILE).exists():
        return 0.0
    success = read_report(directory / _BEST_FILE)["success"]
    return success if isinstance(success, float) else 0.0


def _keep(payload: bytes, report: Report, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    writing = directory / ".writing"
    writing.write_bytes(payload)
    writing.rename(directory / POLICY_FILE)
    writing.write_text(Path(str(report["file"])).read_text())
    writing.rename(directory / _BEST_FILE)
