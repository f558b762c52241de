"""The main job: all roles on this machine under one supervisor, and a final evaluation."""

import dataclasses
import json
import time
from pathlib import Path

from qtopt.apps import evaluate, plan
from qtopt.apps.data import copy_store, store_of
from qtopt.apps.live import Display
from qtopt.apps.plan import Config, Role
from qtopt.apps.process import StopSignal, begin, free_port, set_up_logs
from qtopt.apps.progress import Progress, State, draw_curve
from qtopt.apps.rundir import RunDirectory
from qtopt.apps.supervisor import Supervisor
from qtopt.config import load_yaml, save_yaml
from qtopt.errors import ConfigError, ServerUnavailable
from qtopt.loops.checkpoints import find_checkpoint
from qtopt.loops.report import Report, merge, read_report, success_of_report
from qtopt.replay import read_format
from qtopt.rpc.connection import Connection, connect
from qtopt.rpc.settings import ClientConfig

__all__ = ["Config", "defaults", "main"]

_SERVER_STARTS_WITHIN_S = 300.0


def defaults(words: list[str]) -> Config | None:
    """Returns the configuration of the run named by ``--resume``, to be the default of all other flags."""
    for index, word in enumerate(words):
        if word == "--resume" and index + 1 < len(words):
            return load_yaml(Config, RunDirectory.existing(Path(words[index + 1])).config)
        if word.startswith("--resume="):
            return load_yaml(Config, RunDirectory.existing(Path(word.removeprefix("--resume="))).config)
    return None


def main(config: Config) -> int:
    """Trains for ``config.minutes``, then evaluates; Ctrl-C ends it at any moment."""
    stop = begin("run")
    directory, state = _prepare(config)
    set_up_logs("run", (directory.logs / "run.log").open("a", buffering=1))
    with Display(f"qtopt run: {directory.root}") as display, Supervisor(directory.logs) as supervisor:
        display.say(f"everything is written to {directory.root}")
        if state.minutes < config.minutes:
            directory.final.unlink(missing_ok=True)  # it would be that of earlier networks
            _train(config, directory, state, supervisor, display, stop)
        else:
            display.say(
                f"trained {state.minutes:.1f} minutes already, {config.minutes:g} were asked for: only the final "
                "evaluation is left"
            )
        if stop():
            display.say(f"stopped; go on with: qtopt run --resume {directory.root}")
            return 128 + stop.number
        if config.evaluation.final_episodes:
            display.say(f"training has ended; evaluating {config.evaluation.final_episodes} episodes of each policy")
            reports = _evaluate(config, directory, supervisor, stop)
            if stop():
                display.say(f"stopped during the final evaluation; have it with: qtopt run --resume {directory.root}")
                return 128 + stop.number
            display.say(_summary(reports, directory))
    return 0


def _prepare(config: Config) -> tuple[RunDirectory, State]:
    if config.resume is None:
        _require_beginnings(config)
        directory, state = RunDirectory.create(config.output, config.job), State()
    else:
        directory = RunDirectory.existing(config.resume)
        state = State.load(directory.state)
        plan.require_same(config, load_yaml(Config, directory.config))
        evaluated = directory.final.exists() or not config.evaluation.final_episodes
        if state.minutes >= config.minutes and evaluated:
            raise ConfigError(
                f"{directory.root}: found a run that has had {state.minutes:.1f} minutes, expected one "
                f"with some of its {config.minutes:g} left; give more --minutes to go on"
            )
    directory.write_config(dataclasses.replace(config, resume=None))
    if config.stored is not None and config.resume is None:
        copy_store(store_of(config.stored), directory.store, actors=(), limit=0, offline=True)
    State(state.sessions + 1, state.minutes).save(directory.state)
    return directory, state


def _require_beginnings(config: Config) -> None:
    """Raises an error unless what a new run begins with is there: grasps to come, its store and its policy."""
    if config.collectors == 0 and config.stored is None:
        raise ConfigError(
            "found no collectors and no stored grasps, expected some of either to learn from; give --collectors or "
            "--stored"
        )
    if config.stored is not None:
        read_format(store_of(config.stored))
    if config.start is not None:
        find_checkpoint(config.start)


def _train(
    config: Config, directory: RunDirectory, state: State, supervisor: Supervisor, display: Display, stop: StopSignal
) -> None:
    port = free_port()
    for role in plan.roles(config, directory, port, state.sessions):
        _start(supervisor, role, directory)
    progress = Progress(directory, display, State(state.sessions + 1, state.minutes), config.minutes)
    try:
        connection = _connect(port, supervisor, stop)
        if connection is not None:
            with connection:
                while not stop.wait(1.0) and progress.minutes < config.minutes:
                    supervisor.watch()
                    progress.turn(connection)
                    if config.grasps and progress.grasps >= config.grasps:
                        supervisor.stop(supervisor.named("collector"), grace_s=10.0)
    finally:
        supervisor.stop_all(plan.STOP_PHASES)
        progress.close()
    if not stop():
        draw_curve(directory)


def _start(supervisor: Supervisor, role: Role, directory: RunDirectory) -> None:
    file = directory.roles / f"{role.name}.yaml"
    save_yaml(role.config, file)
    supervisor.start(role.name, [role.command, "--config", str(file)], nice=role.nice)


def _connect(port: int, supervisor: Supervisor, stop: StopSignal) -> Connection | None:
    """Waits for the server; returns None when told to stop meanwhile.

    Raises:
        ServerUnavailable: it lives, but has not answered within ``_SERVER_STARTS_WITHIN_S``.
    """
    deadline_s = time.monotonic() + _SERVER_STARTS_WITHIN_S
    address = ClientConfig(address=f"127.0.0.1:{port}", connect_timeout_s=1.0, call_timeout_s=2.0, attempts=1)
    while not stop():
        supervisor.watch()
        try:
            return connect(address)
        except ServerUnavailable:
            if time.monotonic() > deadline_s:
                raise
    return None


def _evaluate(config: Config, directory: RunDirectory, supervisor: Supervisor, stop: StopSignal) -> dict[str, Report]:
    reports: dict[str, Report] = {}
    for policy, roles in plan.final_roles(config, directory).items():
        for role in roles:
            _start(supervisor, role, directory)
        while supervisor.children and not stop.wait(0.2):
            supervisor.watch(once=True)
        supervisor.stop_all(plan.STOP_PHASES)
        if stop():
            return reports
        shards = [directory.evaluations / "final" / f"{policy}-{number}.json" for number in range(len(roles))]
        reports[policy] = merge([read_report(path) for path in shards], directory.evaluations / f"final-{policy}.json")
    _conclude(reports, directory)
    return reports


def _conclude(reports: dict[str, Report], directory: RunDirectory) -> None:
    scripted, learned = (success_of_report(reports[policy]) for policy in ("scripted", "learned"))
    brief = {policy: {k: v for k, v in report.items() if k != "rows"} for policy, report in reports.items()}
    ratio = round(learned.rate / scripted.rate, 3) if scripted.rate else None
    final = {**brief, "ratio": ratio, "intervals_disjoint": learned.low > scripted.high}
    directory.final.write_text(json.dumps(final, indent=1) + "\n")
    minutes = State.load(directory.state).minutes
    for report in brief.values():
        directory.append_metrics({"minutes": round(minutes, 3), "evaluation": report})
    draw_curve(directory)


def _summary(reports: dict[str, Report], directory: RunDirectory) -> str:
    final = json.loads(directory.final.read_text())
    lines = [f"success on unseen objects, 95 % Wilson intervals, in {directory.final}:"]
    lines += [f"  {policy:<9}{success_of_report(report)}" for policy, report in reports.items()]
    ratio = "not defined: the scripted policy had none" if final["ratio"] is None else f"{final['ratio']:.2f}"
    apart = "disjoint" if final["intervals_disjoint"] else "not disjoint in the learned policy's favour"
    lines += [f"  learned / scripted: {ratio}; the intervals are {apart}", f"curve: {directory.curve}"]
    return "\n".join([*lines, *_best_of_n(directory)])


def _best_of_n(directory: RunDirectory) -> list[str]:
    """Returns what is to be said of the best networks seen: of how many, and that this is no final figure."""
    kept = directory.checkpoints / "best" / evaluate.BEST_FILE
    if not kept.exists():
        return []
    count = len(list(directory.evaluations.glob("learned-*.json")))
    success = success_of_report(read_report(kept))
    return [
        f"best-of-{count} evaluations during the run, each chosen by its own luck too, so no figure to compare by: "
        f"{success}, in {kept.parent}"
    ]
