"""Ablations in one command: each variant is trained from the same stored grasps and tried on the same unseen scenes."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from qtopt.agent.cem import CemConfig
from qtopt.agent.learner import LearnerConfig
from qtopt.agent.targets import TargetConfig
from qtopt.apps import ablation_report, evaluate, offline
from qtopt.apps.plan import STOP_PHASES
from qtopt.apps.process import StopSignal, begin, say
from qtopt.apps.rundir import RunDirectory
from qtopt.apps.supervisor import Supervisor
from qtopt.apps.variants import Variant, choose
from qtopt.config import STRICT, load_yaml, save_yaml
from qtopt.errors import CheckpointError, ConfigError, ProcessFailed
from qtopt.loops.label import LabelLoopConfig
from qtopt.loops.report import Report, read_report
from qtopt.loops.train import TrainLoopConfig
from qtopt.replay import EpisodeStore, ReplayConfig, read_format
from qtopt.types import JsonValue
from sim.config import SimConfig


@dataclass(frozen=True)
class Config:
    """Trains variants of the method from a store and compares them; what is finished is not done again.

    Attributes:
        store: directory of the episode store; it is only read.
        output: where everything is written; give the same again to go on.
        variants: ``all``, or names with commas between them; the baseline is always among them.
        variant_file: YAML with variants of your own.
        steps: gradient steps of each.
        episodes: evaluated episodes of each.
        seeds: of training; each variant is trained once with each.
        evaluation_seed: chooses the scenes of the first training seed; they are the same for all variants.
        processes: trainings and evaluations side by side.
        nice: lowers their priority.
        device: of torch, in training.
        target: what the baseline's labels are.
        replay: sampling and labels.
        learner: network, loss, optimiser, averages of the baseline.
        cem: sizes of the search, in labels and in evaluation.
        label: labels made at once.
        train: pace; its number of steps is replaced by ``steps``.
        sim: the simulated cell of the evaluation.
    """

    __pydantic_config__ = STRICT

    store: Path
    output: Path = Path("outputs/ablation")
    variants: str = "all"
    variant_file: Path | None = None
    steps: int = 10_000
    episodes: int = 200
    seeds: tuple[int, ...] = (0,)
    evaluation_seed: int = 2000
    processes: int = 1
    nice: int = 0
    device: str = "auto"
    target: TargetConfig = field(default_factory=TargetConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    cem: CemConfig = field(default_factory=CemConfig)
    label: LabelLoopConfig = field(default_factory=LabelLoopConfig)
    train: TrainLoopConfig = field(default_factory=lambda: TrainLoopConfig(publish_every_s=5.0))
    sim: SimConfig = field(default_factory=SimConfig)

    def __post_init__(self) -> None:
        if min(self.steps, self.episodes, self.processes) < 1:
            raise ConfigError(
                f"ablate: found steps {self.steps}, episodes {self.episodes} and processes {self.processes}, expected "
                "at least 1 of each"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"ablate: found the seeds {self.seeds}, expected one or more different ones from 0")

    def base(self) -> offline.Config:
        """Returns the training that variants differ from."""
        return offline.Config(
            store=self.store,
            resume=True,
            output=self.output,
            device=self.device,
            target=self.target,
            replay=self.replay,
            learner=self.learner,
            cem=self.cem,
            label=self.label,
            train=replace(self.train, steps=self.steps),
        )


@dataclass(frozen=True)
class Job:
    """A variant with one seed: a training, then an evaluation with the same settings where both have them.

    Attributes:
        variant: its name.
        seed: of training.
        training: of ``qtopt offline``.
        evaluation: of ``qtopt eval``.
    """

    variant: str
    seed: int
    training: offline.Config
    evaluation: evaluate.Config

    @property
    def name(self) -> str:
        """What it is called in the progress and in the logs."""
        return f"{self.variant}-seed{self.seed}"

    @property
    def directory(self) -> RunDirectory:
        """Where it is written."""
        return RunDirectory(self.training.output or Path())

    @property
    def result(self) -> Path:
        """The evaluation's report."""
        return self.directory.evaluations / "result.json"

    @property
    def minutes(self) -> float:
        """How long it has trained [min], sessions before a restart left out."""
        return float(max((row.get("minutes", 0.0) for row in self.directory.read_metrics()), default=0.0))

    def stage(self) -> tuple[str, Any] | None:
        """Returns the command that comes next and its configuration; None when all is done."""
        if self.result.exists():
            return None
        learner = self.directory.checkpoints / "last" / "learner.json"
        trained = learner.exists() and json.loads(learner.read_text())["step"] >= self.training.train.steps
        return ("eval", self.evaluation) if trained else ("offline", self.training)


def jobs(config: Config, variants: Sequence[Variant]) -> list[Job]:
    """Returns what is to be done, seed by seed, so that a table of all variants is there early."""
    planned = []
    for place, seed in enumerate(config.seeds):
        for variant in variants:
            output = config.output / "runs" / f"{variant.name}-seed{seed}"
            training = replace(variant.apply(config.base()), output=output, seed=seed)
            evaluation = evaluate.Config(
                checkpoint=RunDirectory(output).checkpoints / "last",
                episodes=config.episodes,
                seed=config.evaluation_seed + place,
                output=RunDirectory(output).evaluations,
                name="result",
                filmstrips=6,
                sim=_cell(config.sim, training),
                cem=training.cem,
            )
            planned.append(Job(variant.name, seed, training, evaluation))
    return planned


def _cell(sim: SimConfig, training: offline.Config) -> SimConfig:
    """Returns the cell with the camera that the variant's network takes it to have."""
    network = training.learner.network
    camera = network.camera if network.kind == "compact" else sim.camera
    return replace(sim, camera=replace(camera, size_px=network.image.stored_px))


def main(config: Config) -> int:
    """Runs what is not finished, and writes the table after each variant."""
    stop = begin("ablate")
    read_format(config.store)
    variants = choose(config.variants, config.variant_file)
    planned = jobs(config, variants)
    logs = config.output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for job in planned:
        _claim(job)
    with Supervisor(logs) as supervisor, Board(planned) as board:
        try:
            _run(config, variants, planned, supervisor, board, stop)
        finally:
            supervisor.stop_all(((("",), STOP_PHASES[0][1]),))
    if stop():
        say(f"stopped; the same command goes on in {config.output}")
        return 128 + stop.number
    _write(config, variants, planned)
    say((config.output / "README.md").read_text())
    return 0


def _claim(job: Job) -> None:
    """Writes a job's configurations, or checks that those there are the same; raises CheckpointError."""
    job.directory.prepare()
    for name, own in (("offline", job.training), ("eval", job.evaluation)):
        file = job.directory.roles / f"{name}.yaml"
        if not file.exists():
            save_yaml(own, file)
        elif load_yaml(type(own), file) != own:
            raise CheckpointError(
                f"{job.directory.root}: found a variant with other settings (roles/{name}.yaml), expected those given "
                "now; go on with the first ones, or give another --output"
            )


def _run(
    config: Config,
    variants: Sequence[Variant],
    planned: Sequence[Job],
    supervisor: Supervisor,
    board: "Board",
    stop: StopSignal,
) -> None:
    waiting, running = [job for job in planned if job.stage() is not None], dict[str, tuple[Job, str]]()
    while (waiting or running) and not stop():
        while waiting and len(running) < config.processes:
            job = waiting.pop(0)
            running[job.name] = (job, _start(job, supervisor, config.nice))
        supervisor.watch(once=True)
        for name, (job, command) in list(running.items()):
            board.show(job, command)
            if name in supervisor.children:
                continue
            following = job.stage()
            if following is None:
                del running[name]
                board.show(job, "finished")
                _write(config, variants, planned)
            elif following[0] == command:
                raise ProcessFailed(f"{name}: {command} ended without its result; see logs/{name}.log")
            else:
                running[name] = (job, _start(job, supervisor, config.nice))
        stop.wait(0.2)


def _start(job: Job, supervisor: Supervisor, nice: int) -> str:
    stage = job.stage()
    assert stage is not None
    supervisor.start(job.name, [stage[0], "--config", str(job.directory.roles / f"{stage[0]}.yaml")], nice=nice)
    return stage[0]


def _write(config: Config, variants: Sequence[Variant], planned: Sequence[Job]) -> None:
    results: dict[str, list[Report]] = {}
    for variant in variants:
        own = [job for job in planned if job.variant == variant.name]
        if all(job.result.exists() for job in own):
            results[variant.name] = [read_report(job.result) for job in own]
    with EpisodeStore(config.store, read_only=True) as store:
        grasps = int(store.stats()["episodes"])
    facts: Mapping[str, JsonValue] = {
        "objects": planned[0].evaluation.objects,
        "profile": config.learner.network.kind,
        "store": str(config.store),
        "grasps": grasps,
        "gradient_steps": config.steps,
        "episodes_of_each_seed": config.episodes,
        "seeds": list(config.seeds),
        "first_evaluation_seed": config.evaluation_seed,
    }
    wall_s = {
        variant.name: round(sum(60 * job.minutes for job in planned if job.variant == variant.name), 1)
        for variant in variants
    }
    ablation_report.write(config.output, facts, variants, results, wall_s)


class Board:
    """Who is how far: bars in a terminal, a line for each change elsewhere. Use as a context manager."""

    def __init__(self, planned: Sequence[Job]) -> None:
        console = Console(file=sys.stdout, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[doing]}"))
        self._bars = Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)
        self._plain = not console.is_terminal
        self._doing: dict[str, str] = {}
        self._rows: dict[str, TaskID] = {}
        for job in planned:
            finished = job.stage() is None
            steps = job.training.train.steps
            self._rows[job.name] = self._bars.add_task(
                job.name,
                start=False,
                total=steps,
                completed=steps if finished else 0,
                doing="finished" if finished else "waits",
            )

    def show(self, job: Job, doing: str) -> None:
        """Shows what a job does now, ``offline``, ``eval`` or ``finished``, and how far its training is."""
        text = {"offline": "trains", "eval": "is evaluated"}.get(doing, doing)
        if self._doing.get(job.name) != doing:
            self._doing[job.name] = doing
            self._bars.start_task(self._rows[job.name])
            if self._plain:
                say(f"{job.name}: {text}")
        if not self._plain:
            rows = job.directory.read_metrics() if doing == "offline" else []
            step = rows[-1].get("trainer/step", 0) if rows else 0
            done = step if doing == "offline" else job.training.train.steps
            self._bars.update(self._rows[job.name], completed=done, doing=text)
            if doing == "finished":
                self._bars.stop_task(self._rows[job.name])

    def __enter__(self) -> "Board":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
