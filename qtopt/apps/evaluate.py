"""Evaluation in a process of its own: of a checkpoint, of the scripted policy, or of whatever is newest."""

import contextlib
import hashlib
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
from qtopt.apps.bar import Advance, bar
from qtopt.apps.describe import describe, tell
from qtopt.apps.metrics import MetricsConfig, expose
from qtopt.apps.process import StopSignal, begin, limit_threads, logger
from qtopt.apps.reporting import Reporting
from qtopt.apps.rundir import provenance
from qtopt.config import STRICT, from_plain, to_plain
from qtopt.errors import ConfigError
from qtopt.exported import is_exported
from qtopt.interfaces import Policy
from qtopt.loops.checkpoints import POLICY_FILE, find_checkpoint, is_pretrained
from qtopt.loops.collect import Follower
from qtopt.loops.evaluate import Evaluated, EvaluationConfig, evaluate
from qtopt.loops.metrics import wilson
from qtopt.loops.report import Report, headline, read_report, record
from qtopt.rpc.connection import connect
from qtopt.rpc.settings import ClientConfig
from qtopt.types import JsonValue
from robot_bridge.onnx_policy import OnnxPolicy
from sim.config import ObjectSet, SimConfig

OUTPUT = Path("outputs/eval")
"""Where evaluations go that belong to no run."""

EVALUATING, LOG_EVERY = "evaluating", 10
"""The event in the log that tells how many episodes are done, and after how many it comes."""

BEST_FILE = "evaluation.json"


@dataclass(frozen=True)
class Config:
    """Success of a policy on fixed scenes, with its 95 % Wilson interval; greedy, on objects never trained on.

    Attributes:
        checkpoint: a checkpoint, or a run's directory for its newest one, or the word pretrained for the policy that
            ships, or what qtopt export wrote; leave away with --policy scripted or --watch.
        policy: which policy to evaluate.
        objects: ``unseen``, or ``other`` for kinds that no training object is a relative of, for figures to report;
            ``train`` needs --diagnose.
        diagnose: allow training objects; what is printed says that it is no figure to report.
        protocol: ``fresh``, single grasps in freshly filled bins; ``emptying``, as in the paper: ``bins`` of ten
            objects, up to ``attempts`` grasps in each, what is held at the end of one is taken out.
        episodes: episodes to run, with the protocol fresh.
        bins: bins to empty.
        attempts: attempts in each bin at most.
        json: also write one JSON object with ``success`` and ``interval`` to this file; - writes it to the standard
            output, and nothing else.
        seed: chooses scenes and chance.
        episodes_per_scene: episodes run one after another before the bin is filled anew.
        shard: which of ``shards`` parts to run.
        shards: parts of the evaluation, run side by side.
        filmstrips: episodes drawn.
        output: directory for JSON and pictures; by default eval/ of the checkpoint's run, else outputs/eval.
        name: of the files written; made of policy, step, objects, seed and episodes or bins by default.
        watch: evaluate the newest published networks of --server again and again.
        every_s: with watch, time between the starts of two evaluations [s].
        server: with watch, where the networks come from (--server host:port).
        scripted_first: with watch, evaluate the scripted policy before anything else.
        best: with watch, directory that keeps the best networks seen.
        threads: threads of torch.
        sim: the simulated cell; its set of objects is replaced by ``objects``.
        scripted: the script's habits.
        cem: sizes of the search for the best action.
        metrics: with watch, where Prometheus finds this process's figures.
    """

    __pydantic_config__ = STRICT

    checkpoint: Path | None = None
    policy: Literal["learned", "scripted"] = "learned"
    objects: ObjectSet = "unseen"
    diagnose: bool = False
    protocol: Literal["fresh", "emptying"] = "fresh"
    episodes: int = 200
    bins: int = 20
    attempts: int = 15
    json: Path | None = None
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
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

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
        if self.json is not None and self.watch:
            raise ConfigError("eval: found --json with --watch, expected it with a single evaluation")
        if self.bins < 1 or self.attempts < 1:
            raise ConfigError(f"eval: bins is {self.bins} and attempts {self.attempts}, expected at least 1")
        self.plan()

    def plan(self) -> EvaluationConfig:
        """Returns what to run."""
        if self.protocol == "emptying":
            most = self.bins * self.attempts
            return EvaluationConfig(most, self.seed, self.attempts, self.shard, self.shards, until_empty=True)
        return EvaluationConfig(self.episodes, self.seed, self.episodes_per_scene, self.shard, self.shards)

    def cell(self) -> SimConfig:
        """Returns the cell to run it in."""
        if self.protocol == "emptying":
            return replace(self.sim, objects=self.objects, object_count=(10, 10), keep_scene=True)
        return replace(self.sim, objects=self.objects)


def main(config: Config) -> int:
    """Evaluates once, or again and again with ``watch``."""
    stop = begin("evaluator")
    limit_threads(config.threads)
    if config.watch:
        return _watch(config, stop)
    if config.policy == "scripted":
        report = _evaluate(config, ScriptedPolicy(config.scripted), 0, config.output or OUTPUT, stop)
    elif config.checkpoint is not None and is_exported(config.checkpoint):
        report = _evaluate_exported(config, config.checkpoint, stop)
    else:
        checkpoint = find_checkpoint(config.checkpoint or Path())
        payload = (checkpoint / POLICY_FILE).read_bytes()
        network = load_policy_network(payload)
        _check_camera(network.config, config.sim)
        policy = CemPolicy(network, config.cem)
        own = OUTPUT if is_pretrained(config.checkpoint or Path()) else checkpoint.parent.parent / "eval"
        step = int(read_header(payload)["step"])
        facts: Report = {"policy_sha256": hashlib.sha256(payload).hexdigest()}
        report = _evaluate(config, policy, step, config.output or own, stop, facts)
    if stop():
        return 128 + stop.number
    tell(headline(report), config.json, lambda: describe(report))
    return 0


def _evaluate_exported(config: Config, directory: Path, stop: StopSignal) -> Report:
    """Evaluates graphs as a robot's computer runs them, with this command's search; in files of a name of their own."""
    policy = OnnxPolicy(directory, config.cem, threads=config.threads)
    manifest = policy.manifest
    _check_camera(from_plain(NetworkConfig, manifest.network, str(directory)), config.sim)
    named = config if config.name else replace(config, name=_name(config, manifest.step, "onnx"))
    facts: Report = {"policy_sha256": manifest.policy_sha256, "runtime": "onnx", "head_sha256": manifest.head_sha256}
    return _evaluate(named, policy, manifest.step, config.output or OUTPUT, stop, facts)


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


def _evaluate(
    config: Config, policy: Policy, step: int, output: Path, stop: StopSignal, more: Report | None = None
) -> Report:
    from sim import make_environment

    path = output / f"{config.name or _name(config, step, config.policy)}.json"
    facts: dict[str, JsonValue] = {
        "policy": config.policy,
        "step": step,
        "objects": config.objects,
        "protocol": config.protocol,
        "seed": config.seed,
        "file": str(path),
        "started": time.time(),
        "checkpoint": None if config.checkpoint is None else str(config.checkpoint),
        "sim": to_plain(config.cell()),
        "cem": to_plain(config.cem),
        "provenance": {name: value for name, value in provenance().items()},
        **(more or {}),
    }
    environment = make_environment(config.cell())
    plan = config.plan()
    started = time.monotonic()
    with contextlib.closing(environment), bar("evaluating", plan.episodes // plan.shards) as advance:
        evaluated = _checked(config, evaluate(environment, policy, config=plan, stop=stop), advance)
        report = record(evaluated, path, facts, filmstrips=config.filmstrips, stop=stop)
    seconds = round(time.monotonic() - started, 1)
    logger().info("evaluated", **{k: report[k] for k in ("policy", "step", "success", "episodes")}, seconds=seconds)
    return report


def _name(config: Config, step: int, policy: str) -> str:
    kind = config.objects if config.protocol == "fresh" else f"{config.objects}-{config.protocol}"
    count = config.episodes if config.protocol == "fresh" else config.bins
    return f"{policy}-{step:010d}-{kind}-seed{config.seed}-{count}"


def _checked(config: Config, evaluated: Iterator[Evaluated], advance: Advance | None) -> Iterator[Evaluated]:
    """Passes on what was evaluated, on the objects asked for; tells how far it is."""
    successes = 0
    for done, one in enumerate(evaluated, 1):
        found = one.episode.metadata.get("object_set")
        if found != config.objects:
            raise ConfigError(
                f"the cell used the objects {found!r}, expected {config.objects!r}: no figure to report comes of it"
            )
        successes += one.episode.success
        if advance is not None:
            advance(done, f"success {wilson(successes, done)}")
        elif done % LOG_EVERY == 0:
            logger().info(EVALUATING, done=done)
        yield one


def _watch(config: Config, stop: StopSignal) -> int:
    output = config.output or OUTPUT
    best = _success_of_best(config.best)
    with connect(config.server) as remote, contextlib.ExitStack() as parts:
        reporting = Reporting(remote.monitor, "evaluator", Figures(), disk=output)
        parts.enter_context(expose(config.metrics, reporting.role, reporting.figures))
        if config.scripted_first:
            scripted = replace(config, policy="scripted", watch=False, name="")
            reporting.take(_evaluate(scripted, ScriptedPolicy(config.scripted), 0, output, stop))
        follower = Follower(remote.model, lambda snapshot: snapshot)
        while not stop():
            started = time.monotonic()
            if follower.refresh() and follower.current is not None:
                snapshot = follower.current
                policy = CemPolicy(load_policy_network(snapshot.payload), config.cem)
                report = _evaluate(replace(config, name=""), policy, snapshot.step, output, stop)
                reporting.take({**report, "version": snapshot.version})
                success = report["success"]
                if not stop() and config.best is not None and isinstance(success, float) and success >= best:
                    best = success
                    _keep(snapshot.payload, report, config.best)
            stop.wait(max(1.0, config.every_s - (time.monotonic() - started)))
    return 0


class Figures:
    """Sums up evaluations."""

    def __init__(self) -> None:
        self._done = 0
        self._newest: dict[str, float] = {}

    def add(self, turn: Report) -> None:
        """Takes a report; one that was cut short before its first episode counts for nothing."""
        success, version = turn["success"], turn.get("version")
        if isinstance(success, float):
            self._done += 1
            self._newest[f"success_{turn['policy']}"] = success
        if isinstance(version, int):
            self._newest["policy_version"] = float(version)

    def figures(self) -> dict[str, float]:
        """Returns the newest figures."""
        return {"evaluations": float(self._done), **self._newest}


def _success_of_best(directory: Path | None) -> float:
    """Returns the success of the networks kept as the best so far, by this process or one before it; 0 without any."""
    if directory is None or not (directory / BEST_FILE).exists():
        return 0.0
    success = read_report(directory / BEST_FILE)["success"]
    return success if isinstance(success, float) else 0.0


def _keep(payload: bytes, report: Report, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    writing = directory / ".writing"
    writing.write_bytes(payload)
    writing.rename(directory / POLICY_FILE)
    writing.write_text(Path(str(report["file"])).read_text())
    writing.rename(directory / BEST_FILE)
