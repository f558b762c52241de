"""A policy in the plain simulator and over a physical cell's whole path, scene by scene the same.

The plain simulator moves at once and sees what it renders. The path has the vendor's protocol and client, the cell's
processes, limits and safety layer, motors of limited force in real time, pictures through MJPEG, and the drop test as
its judge. The fingers open as far in both: what a gripper cannot span is no question of the path. Before each episode
the simulated bin is filled from the same seed, and both begin from the same pose.
"""

import contextlib
import ipaddress
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from qtopt.apps import export
from qtopt.apps.bar import bar
from qtopt.apps.hardware import hardware
from qtopt.apps.process import StopSignal, begin, logger, say
from qtopt.apps.robot import Transfer
from qtopt.apps.robot.agreement import judge, read_truth
from qtopt.apps.rundir import provenance
from qtopt.config import to_plain
from qtopt.errors import ConfigError, RobotError
from qtopt.exported import is_exported, read_manifest
from qtopt.interfaces import Environment, ResetResult, StepResult
from qtopt.loops.compare import pair
from qtopt.loops.evaluate import Evaluated, EvaluationConfig, evaluate
from qtopt.loops.metrics import wilson
from qtopt.loops.report import Report, merge, read_report, record
from qtopt.types import FloatArray, JsonValue
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.places import STATE_VARIABLE
from robot_bridge.cell_file import cell_config, load_cell_file
from robot_bridge.onnx_policy import OnnxPolicy
from robot_bridge.safety.limits import ContactLimits
from sim.cell import make_environment
from sim.config import SimConfig
from sim.faults.cells import SimulatedCell, until
from sim.hand import MAX_WIDTH_M

_MOST_POINTS: Final = 0.05
_AGAIN_S: Final = 1.0
_CLEAR_S: Final = 300.0
_REST_S: Final = 10.0
_TRIES: Final = 3
"""Ways up that fail before the simulated person frees a tool that is caught in something."""
_RESULT: Final = "result.json"
_PLAN: Final = ("episodes", "seed", "objects", "object_set", "camera_px", "contact_n", "retract_m", "limits_of")
_MOTION: Final = (
    "speed_m_s", "slow_speed_m_s", "slow_height_m", "accel_m_s2", "stop_decel_m_s2", "yaw_rate_rad_s", "step_m",
    "step_yaw_rad",
)  # fmt: skip
_KEPT: Final = ("success", "successes", "episodes", "aborted", "outcomes")


class FilledCell:
    """A ``PhysicalCell`` over a simulated one, whose bin is filled anew for each scene; an ``Environment``.

    Args:
        sim: the simulated cell.
        objects: the set of objects in it, for the record.
        size_px: height and width of the policy's pictures.
        stop: ends the wait for a free way.

    Attributes:
        locks: how often which rule locked motion; each was acknowledged as a person would.
    """

    def __init__(self, sim: SimulatedCell, objects: str, size_px: int, stop: StopSignal) -> None:
        self._sim, self._objects, self._stop = sim, objects, stop
        self.locks: Counter[str] = Counter()
        self._cell = PhysicalCell(sim.path, size_px, stop, idle=self._unlock)

    def start_episode(self, seed: int | None = None) -> ResetResult:
        """Fills the bin from ``seed`` and begins an episode.

        Raises:
            RobotError: the arm did not come clear of the bin in time, or the wait was ended.
        """
        deadline = time.monotonic() + _CLEAR_S
        for tries in itertools.count(1):
            self._cell.await_person()
            try:
                self._cell.robot.go_clear()
                until(lambda: not self._sim.truth()["moving"], _REST_S)
                self._sim.inject("refill", seed=seed)
                break
            except RobotError as error:
                if self._stop() or time.monotonic() > deadline:
                    raise
                logger().warning("the bin is not filled yet", error=str(error))
                # Whoever lifts a tool that has come up leads it out of where it may be.
                if tries % _TRIES == 0 and self._sim.truth()["tool"][2] < self._cell.robot.travel_z_m:
                    self._sim.free()
                time.sleep(_AGAIN_S)
        first = self._cell.start_episode(seed)
        facts: dict[str, JsonValue] = {"cell": self._cell.cell.cell, "object_set": self._objects}
        return replace(first, metadata={**first.metadata, **facts})

    def act(self, action: FloatArray) -> StepResult:
        """Executes one action."""
        return self._cell.act(action)

    def close(self) -> None:
        """Leaves the arm standing."""
        self._cell.close()

    def _unlock(self) -> None:
        lock = self._sim.unlock(self._cell.places)
        self.locks.update([lock.rule] if lock else [])


def main(config: Transfer) -> int:
    """Runs both; returns 1 where the path costs more than five points of success."""
    stop = begin("transfer")
    with tempfile.TemporaryDirectory() as directory:
        room = Path(directory)
        os.environ[STATE_VARIABLE] = str(room / "cells")
        exported = config.checkpoint
        if not is_exported(exported):
            exported = room / "exported"
            export.main(export.Config(config.checkpoint, exported))
        parted = config.parts > 1
        plan = _plan(config, exported)
        run = _in_parts if parted else _run
        plain, path, labels, locks = run(config, exported, room, stop)
    if stop():
        return 128 + stop.number
    paired = pair(plain, path)
    commits: list[JsonValue] = []
    if parted:
        commits += sorted({str(read_report(each / _RESULT)["commit"]) for each in _outputs(config)})
    result: Report = {
        **{key: provenance()[key] for key in ("commit", "command")},
        "hardware": hardware(),
        "commits": commits,
        "cells": config.cells,
        "shards": config.shards,
        **plan,
        "plain": {key: plain[key] for key in _KEPT},
        "path": {key: path[key] for key in _KEPT},
        "plain_minus_path": paired.to_json(),
        "labels": dict(labels),
        "locks": dict(locks),
    }
    (config.output / _RESULT).write_text(json.dumps(result, indent=1) + "\n")
    say(json.dumps(result))
    return int(not paired.difference <= _MOST_POINTS)


def _plan(config: Transfer, exported: Path) -> Report:
    """Returns what is the same in all parts of a run."""
    return {**{key: to_plain(getattr(config, key)) for key in _PLAN}, "policy": read_manifest(exported).policy_sha256}


def _outputs(config: Transfer) -> list[Path]:
    return [config.output / "cells" / str(number) for number in range(config.parts)]


def _in_parts(
    config: Transfer, exported: Path, room: Path, stop: StopSignal
) -> tuple[Report, Report, Counter[str], Counter[str]]:
    """As ``_run``, a part of the episodes in each of several processes with cells of their own.

    Raises:
        ConfigError: a part that is there already was made otherwise.
        RobotError: a part ended without a result.
    """
    outputs = _outputs(config)
    waiting = [number for number, output in enumerate(outputs) if not (output / _RESULT).is_file()]
    expected: Report = {"shards": config.parts, **_plan(config, exported)}
    for output in outputs:
        made = read_report(output / _RESULT) if (output / _RESULT).is_file() else expected
        other = [
            f"{key} {made.get(key)!r}, expected {expected[key]!r}" for key in expected if made.get(key) != expected[key]
        ]
        if other:
            raise ConfigError(
                f"transfer: found {output} made with other settings: {'; '.join(other)}; use another --output"
            )
    with contextlib.ExitStack() as running:
        processes: list[subprocess.Popen[bytes]] = []
        while not stop():
            processes = [each for each in processes if each.poll() is None]
            while waiting and len(processes) < config.cells:
                number = waiting.pop(0)
                processes.append(running.enter_context(_part(config, exported, number, outputs[number])))
            if not processes:
                break
            time.sleep(_AGAIN_S)
        if stop():
            for process in processes:
                process.terminate()
    if stop():
        return {}, {}, Counter(), Counter()
    missing = [str(output) for output in outputs if not (output / _RESULT).is_file()]
    if missing:
        raise RobotError(f"transfer: no result in {', '.join(missing)}; see what these parts said above")
    results = [read_report(output / _RESULT) for output in outputs]
    plain, path = (
        merge([read_report(output / f"{name}.json") for output in outputs], config.output / f"{name}.json")
        for name in ("plain", "path")
    )
    labels, locks = (
        sum((Counter(_counts(result[key])) for result in results), Counter[str]()) for key in ("labels", "locks")
    )
    return plain, path, labels, locks


def _part(config: Transfer, exported: Path, number: int, output: Path) -> "subprocess.Popen[bytes]":
    words: dict[str, object] = {
        "checkpoint": exported,
        "episodes": config.episodes,
        "seed": config.seed,
        "objects": config.objects,
        "object-set": config.object_set,
        "camera-px": config.camera_px,
        "retract-m": config.retract_m,
        "host": ipaddress.ip_address(config.host) + number,
        "shard": number,
        "shards": config.parts,
        "output": output,
    }
    command = [sys.executable, "-m", "qtopt.cli", "robot", "transfer", "--contact-n", *map(str, config.contact_n)]
    if config.limits_of is not None:
        command += ["--limits-of", str(config.limits_of)]
    return subprocess.Popen([*command, *(str(word) for name, value in words.items() for word in (f"--{name}", value))])


def _counts(value: JsonValue) -> dict[str, int]:
    return {name: int(str(count)) for name, count in value.items()} if isinstance(value, dict) else {}


def _run(
    config: Transfer, exported: Path, room: Path, stop: StopSignal
) -> tuple[Report, Report, Counter[str], Counter[str]]:
    """Returns both reports, how the path's labels agree with the truth, and what locked motion."""
    config.output.mkdir(parents=True, exist_ok=True)
    truth = config.output / "truth.jsonl"
    truth.unlink(missing_ok=True)  # of a run that was ended
    words = ["--objects", str(config.objects), "--object-set", config.object_set, "--truth", str(truth)]
    options = [*words, "--camera-px", str(config.camera_px), "--open-width-m", str(MAX_WIDTH_M)]
    plan = EvaluationConfig(config.episodes, config.seed, shard=config.shard or 0, shards=config.shards)
    episodes = len(range(config.shard or 0, config.episodes, config.shards))
    with SimulatedCell("ur", room, config.host, None, options=options) as sim:
        same = SimConfig(
            objects=config.object_set,
            object_count=(config.objects, config.objects),
            cell=cell_config(load_cell_file(sim.path)),
        )
        sim.path.write_text(_limited(sim.path.read_text(), config))
        cell = load_cell_file(sim.path)
        facts: Report = {
            "policy": "learned",
            "objects": config.object_set,
            "protocol": "fresh",
            "seed": config.seed,
            "sim": to_plain(same),
            "path": {name: to_plain(getattr(cell, name)) for name in ("limits", "contact")},
        }

        def report(name: str, environment: Environment, deadline_s: float | None) -> tuple[Report, list[Evaluated]]:
            policy = OnnxPolicy(exported, deadline_s=deadline_s)
            with contextlib.closing(environment):
                kept: list[Evaluated] = []
                evaluated = _told(name, evaluate(environment, policy, config=plan, stop=stop), episodes, kept)
                file = config.output / f"{name}.json"
                return record(evaluated, file, {**facts, "file": file.name}, filmstrips=12, stop=stop), kept

        plain, _ = report("plain", make_environment(same), None)
        size_px = OnnxPolicy(exported).manifest.image.stored_px
        filled = FilledCell(sim, config.object_set, size_px, stop)
        path, ran = report("path", filled, cell.watchdog.policy_hold_s)
        truths = read_truth([truth])
    labels = [judge(each.episode, truths) for each in ran]
    for each, label in zip(ran, labels, strict=True):
        if label.startswith("false"):
            logger().warning("a label differs from the truth", episode=each.index, label=label)
    return plain, path, Counter(labels), filled.locks


def _limited(text: str, config: Transfer) -> str:
    """Returns the text of a cell file with the limits of the path."""
    if config.limits_of is None:
        descend_n, aside_n, retract_n, latch_n = config.contact_n
        contact = ContactLimits(descend_n, retract_n, latch_n, config.retract_m, aside_n)
    else:
        lab = load_cell_file(config.limits_of)
        kept = "\n".join(line for line in text.splitlines() if line.partition(" = ")[0] not in _MOTION)
        motion = [f"{name} = {getattr(lab.limits, name)}" for name in _MOTION]
        text, contact = kept.replace("[limits]", "\n".join(["[limits]", *motion])), lab.contact
    lines = [f"{name} = {value}" for name, value in asdict(contact).items() if value is not None]
    return "\n".join([text, "[contact]", *lines, ""])


def _told(name: str, evaluated: Iterator[Evaluated], episodes: int, kept: list[Evaluated]) -> Iterator[Evaluated]:
    """Passes episodes on, tells how far it is, and keeps them."""
    with bar(name, episodes) as advance:
        for one in evaluated:
            kept.append(one)
            success = wilson(sum(each.episode.success for each in kept), len(kept))
            if advance is not None:
                advance(len(kept), f"success {success}")
            elif len(kept) % 10 == 0:
                say(f"{name}: {len(kept)} episodes, success {success}")
            yield one
