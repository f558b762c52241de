"""The last checkpoints of whole runs, evaluated on fixed scenes into one result file."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from qtopt.apps import evaluate, plan
from qtopt.apps.bar import Advance, bar
from qtopt.apps.hardware import hardware
from qtopt.apps.process import StopSignal, begin, logger, say
from qtopt.apps.progress import State
from qtopt.apps.rundir import RunDirectory, command, provenance
from qtopt.apps.supervisor import Supervisor
from qtopt.config import STRICT, load_yaml, save_yaml, to_plain
from qtopt.errors import CheckpointError, ConfigError
from qtopt.loops.checkpoints import POLICY_FILE, all_checkpoints
from qtopt.loops.finals import Checked, best_of, summarise_finals
from qtopt.loops.metrics import wilson
from qtopt.loops.report import Report, merge, read_report, rows_of, success_of_report


@dataclass(frozen=True)
class Config:
    """How good were these runs? Evaluates the last checkpoints of each on the same scenes; each run is one seed.

    Evaluations lie in each run's eval/finals/ and are not repeated: one that was stopped goes on where it was.

    Attributes:
        runs: directories of runs that differ in their seed alone.
        output: JSON file to write the result to.
        checkpoints: last checkpoints of each run; to have more than three, train with --train.keep-checkpoints.
        episodes: episodes of each checkpoint.
        objects: what lies in the bins.
        seed: chooses the scenes.
        processes: processes side by side.
    """

    __pydantic_config__ = STRICT

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    output: Path
    checkpoints: int = 3
    episodes: int = 300
    objects: Literal["unseen", "other"] = "unseen"
    seed: int = 2000
    processes: int = 2

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("finals: found no run, expected directories like outputs/kuka/<time>")
        if min(self.checkpoints, self.episodes, self.processes) < 1 or self.seed < 0:
            raise ConfigError(
                f"finals: checkpoints {self.checkpoints}, episodes {self.episodes} and processes {self.processes} must "
                f"be at least 1, seed {self.seed} not negative"
            )


@dataclass(frozen=True)
class Run:
    """A run, as it was configured, and the checkpoints of it that are evaluated, oldest first."""

    directory: RunDirectory
    config: plan.Config
    checkpoints: Sequence[Path]


def main(config: Config) -> int:
    """Evaluates what was not evaluated yet, and writes the result."""
    stop = begin("finals")
    runs = [_open(root, config.checkpoints) for root in config.runs]
    _require_alike(runs)
    jobs = [(run, path) for run in runs for path in run.checkpoints]
    reports: dict[Path, Report] = {}
    with bar("evaluating", len(jobs) * config.episodes) as advance:
        for done, (run, checkpoint) in enumerate(jobs):
            job = Job(config, run, checkpoint)
            report = job.earlier() or job.evaluate(stop, advance, done * config.episodes)
            if report is None:
                return 128 + stop.number
            reports[checkpoint] = report
            if advance is None:
                logger().info("evaluated", checkpoint=str(checkpoint), success=report["success"])
    result = _result(config, runs, reports)
    config.output.parent.mkdir(parents=True, exist_ok=True)
    config.output.write_text(json.dumps(result, indent=1) + "\n")
    say(_describe(result, config.output))
    return 0


def _open(root: Path, count: int) -> Run:
    directory = RunDirectory.existing(root)
    found = all_checkpoints(directory.checkpoints)
    if len(found) < count:
        raise CheckpointError(
            f"{directory.checkpoints}: found {len(found)} checkpoints, expected {count}; ask for fewer, or train with "
            f"--train.keep-checkpoints {count}"
        )
    return Run(directory, load_yaml(plan.Config, directory.config), found[-count:])


def _require_alike(runs: Sequence[Run]) -> None:
    seeds = [run.config.seed for run in runs]
    kinds = {run.config.learner.network.kind for run in runs}
    if len(set(seeds)) < len(seeds) or len(kinds) > 1:
        raise ConfigError(
            f"finals: found seeds {seeds} and networks {sorted(kinds)}, expected runs of one network and a seed each; "
            "give runs that differ in their seed alone"
        )


@dataclass(frozen=True)
class Job:
    """The evaluation of one checkpoint."""

    config: Config
    run: Run
    checkpoint: Path

    @property
    def path(self) -> Path:
        """Where its report lies."""
        config = self.config
        name = f"{self.checkpoint.name}-{config.objects}-seed{config.seed}-{config.episodes}.json"
        return self.run.directory.evaluations / "finals" / name

    def plan(self) -> evaluate.Config:
        """Returns what one process has to evaluate; which shard it takes is open."""
        return evaluate.Config(
            checkpoint=self.checkpoint,
            objects=self.config.objects,
            episodes=self.config.episodes,
            seed=self.config.seed,
            shards=self.config.processes,
            filmstrips=0,
            output=self.path.parent / "shards",
            sim=self.run.config.sim,
            cem=self.run.config.cem,
        )

    def earlier(self) -> Report | None:
        """Returns the report of an earlier evaluation of the same networks on the same scenes, if there is one."""
        if not self.path.exists():
            return None
        report, planned = read_report(self.path), self.plan()
        asked: dict[str, Any] = {
            "policy_sha256": hashlib.sha256((self.checkpoint / POLICY_FILE).read_bytes()).hexdigest(),
            "objects": planned.objects,
            "seed": planned.seed,
            "sim": to_plain(planned.cell()),
            "cem": to_plain(planned.cem),
        }
        same = all(report.get(name) == value for name, value in asked.items())
        return report if same and len(rows_of(report)) == planned.episodes else None

    def evaluate(self, stop: StopSignal, advance: Advance | None, before: int) -> Report | None:
        """Evaluates in processes side by side; returns None when told to stop.

        Args:
            stop: asked again and again.
            advance: moves the bar, where there is one.
            before: episodes done before this checkpoint.
        """
        logs, planned = self.run.directory.logs, self.plan()
        names = [f"finals-{shard}" for shard in range(min(self.config.processes, self.config.episodes))]
        with Supervisor(logs) as supervisor:
            for shard, name in enumerate(names):
                (logs / f"{name}.log").unlink(missing_ok=True)
                file = self.run.directory.roles / f"{name}.yaml"
                save_yaml(replace(planned, shard=shard, shards=len(names), name=name), file)
                supervisor.start(name, ["eval", "--config", str(file)])
            while supervisor.children and not stop.wait(0.2):
                supervisor.watch(once=True)
                if advance is not None:
                    done = before + sum(_done(logs / f"{name}.log") for name in names)
                    advance(done, f"seed {self.run.config.seed}, step {int(self.checkpoint.name)}")
            supervisor.stop_all(plan.STOP_PHASES)
        if stop():
            return None
        return merge([read_report(self.path.parent / "shards" / f"{name}.json") for name in names], self.path)


def _done(log: Path) -> int:
    """Returns how many episodes a process says that it has done."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    for line in reversed(lines):
        if evaluate.EVALUATING in line and line.endswith("}"):
            return int(json.loads(line).get("done", 0))
    return 0


def _result(config: Config, runs: Sequence[Run], reports: dict[Path, Report]) -> dict[str, Any]:
    pairs = [(run, path) for run in runs for path in run.checkpoints]
    evaluated = [Checked(run.config.seed, int(path.name), success_of_report(reports[path])) for run, path in pairs]
    told = [_tell(run) for run in runs]
    return {
        "objects": config.objects,
        "grasps": round(sum(each["grasps"] for each in told) / len(told)),
        **summarise_finals(evaluated),
        "episodes_per_checkpoint": config.episodes,
        "scenes_seed": config.seed,
        "profile": runs[0].config.learner.network.kind,
        "wall_s": round(sum(each["wall_s"] for each in told) / len(told), 1),
        "command": command(),
        "commit": ", ".join(sorted({each["commit"] for each in told})),
        "evaluated_at_commit": provenance()["commit"],
        "hardware": hardware(),
        "runs": told,
        "checkpoints": [
            {"seed": each.seed, "step": each.step, "success": round(each.success.rate, 4)}
            | {"interval": [round(each.success.low, 4), round(each.success.high, 4)], "episodes": each.success.trials}
            for each in evaluated
        ],
        "best_of_n": best_of(evaluated),
    }


def _tell(run: Run) -> dict[str, Any]:
    """Returns what a run took, all its parts together; grasps as of its last row of figures, ten seconds at most."""
    rows, facts = run.directory.read_metrics(), run.directory.facts()
    counted = [row.get(name, 0.0) for row in rows for name in ("server/episodes", "collector/episodes")]
    return {
        "directory": str(run.directory.root),
        "seed": run.config.seed,
        "grasps": int(max(counted, default=0)),
        "wall_s": round(60 * State.load(run.directory.state).minutes, 1),
        "command": facts.get("command", "unknown"),
        "commit": facts.get("commit", "unknown"),
    }


def _describe(result: dict[str, Any], path: Path) -> str:
    def percent(share: float) -> str:
        return f"{100 * share:.1f} %"

    low, high = result["interval"]
    lines = [
        f"{result['objects']} objects, {result['grasps']:,} grasps a run, seeds {result['seeds']}",
        f"final success {percent(result['final_success'])} [{100 * low:.1f}, {100 * high:.1f}], the mean of "
        f"{len(result['checkpoints'])} checkpoints; 95 % Wilson interval over {result['episodes']} episodes",
    ]
    if "over_seeds" in result:
        spread = result["over_seeds"]
        lines.append(
            f"over seeds: standard deviation {percent(spread['standard_deviation'])}, "
            f"worst {percent(spread['worst'])}, best {percent(spread['best'])}"
        )
    if "last_10_worst" in result:
        lines.append(f"last 10: {percent(result['last_10_worst'])} to {percent(result['last_10_best'])}")
    for row in result["checkpoints"]:
        success = wilson(round(row["success"] * row["episodes"]), row["episodes"])
        lines.append(f"  seed {row['seed']}, step {row['step']}: {success}")
    best = result["best_of_n"]
    lines.append(f"best-of-{best['n']}, chosen on these very scenes: {percent(best['success'])}, step {best['step']}")
    return "\n".join([*lines, f"written to {path}"])
