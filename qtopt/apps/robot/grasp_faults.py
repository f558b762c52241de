"""Faults while a grasp is made and judged: whole episodes, whose label is held against what the fingers really held."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from qtopt.apps.robot.agreement import read_truth
from qtopt.errors import RobotError
from qtopt.interfaces import StepResult
from qtopt.specs import make_action
from qtopt.types import FloatArray, Outcome
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.places import Places
from robot_bridge.cell_file import load_cell_file
from robot_bridge.robot import ToolPose
from sim.faults.cases import GraspCase
from sim.faults.cells import SimulatedCell, until
from sim.faults.judge import course
from sim.faults.lateness import Lateness
from sim.faults.run import STAYS_M, YIELDS_N_M
from sim.faults.told import Told

_log = logging.getLogger(__name__)
_OPTIONS: Final = ("--objects", "3", "--camera-px", "240", "--fps", "10")
_EPISODES: Final = 8
"""So many are tried to grasp something at all: the fingers close where an object lies, and may miss it."""
_CASE_S: Final = 600.0
_NEAR_M: Final = 0.01
_DIP_M: Final = 0.01
_LOWEST_M: Final = 0.008
_RISE_M: Final = 0.15
_OPEN_M: Final = 0.07
_ABOVE_M: Final = 0.02
_WATCH_S: Final = 1.0
_YIELD_M: Final = 0.002
_GRIP_N: Final = 30.0
"""A hand that is left with its fingers closed on what also touches the bin gives way to so much."""


def run(protocol: str, cases: Sequence[GraspCase], directory: Path, host: str) -> Iterator[Told]:
    """Yields what came of each case, all of them in one cell."""
    truth = directory / "truth.jsonl"
    with SimulatedCell(protocol, directory, host, None, options=(*_OPTIONS, "--truth", str(truth))) as sim:
        sim.path.write_text(sim.path.read_text().replace("[success]\n", '[success]\ndrop_test = "always"\n'))
        places = Places(load_cell_file(sim.path))
        for number, case in enumerate(cases):
            cell = _open(sim, places)
            try:
                yield _Grasp(case, sim, cell, truth).run(number)
            except (RobotError, OSError) as error:
                _log.exception("%s", case.name)
                yield Told(case.name, protocol, "none", "", f"{type(error).__name__}: {error}")
            finally:
                sim.heal()
                cell.close()
                if places.latched() is not None:
                    places.latch_file.acknowledge("the fault matrix", "the fault was taken back")


def _open(sim: SimulatedCell, places: Places) -> PhysicalCell:
    """Returns the cell; what locks it while nothing is to fail, as a busy machine may, is acknowledged."""
    end_s = time.monotonic() + _CASE_S

    def unlock() -> None:
        sim.unlock(places)

    return PhysicalCell(sim.path, 72, lambda: time.monotonic() > end_s, idle=unlock)


class _Grasp:
    """One case: episodes until one of them comes to the fault, and what its label was worth."""

    def __init__(self, case: GraspCase, sim: SimulatedCell, cell: PhysicalCell, truth: Path) -> None:
        self._case, self._sim, self._cell, self._truth = case, sim, cell, truth
        self._fault_s = 0.0

    def run(self, seed: int) -> Told:
        """Returns what came of it; raises RobotError where nothing could be grasped."""
        with Lateness() as lateness:
            for tries in range(1, _EPISODES + 1):
                try:
                    result = self._episode(100 * seed + tries)
                except RobotError as error:  # locked on the way to the fault, by what was touched, and not for good
                    if tries == _EPISODES or self._fault_s:
                        raise
                    _log.warning("the fault did not come: %s", error)
                    continue
                if result is not None and self._is_fair(result):
                    return self._judge(result, tries, lateness.most_s)
        raise RobotError(f"nothing was grasped in {_EPISODES} episodes")

    def _episode(self, seed: int) -> StepResult | None:
        """Returns the end of an episode that had the fault; None where it was none for it."""
        case, cell, sim = self._case, self._cell, self._sim
        self._fault_s = 0.0
        sim.heal()
        cell.await_person()
        cell.robot.go_clear()
        until(lambda: not sim.truth()["moving"], 5.0, 0.05)
        sim.inject("refill", seed=seed)
        cell.start_episode(seed)
        if case.when == "begins":
            self._break()
        for action in self._approach() if case.around == "object" else self._in_the_air():
            result = cell.act(action)
            if result.outcome is not None:
                return result if self._fault_s and "gripper" in _why(result) else None
        if case.around == "object" and case.how.get("what") != "jammed" and not self._holds():
            cell.act(make_action(terminate=True))
            return None
        return self._ended()

    def _approach(self) -> Iterator[FloatArray]:
        """Yields actions that close the fingers around an object within reach, and lift."""
        limits = self._cell.environment.config.limits
        within = [
            place
            for _, *place in self._sim.truth()["objects"]
            if all(
                low <= each <= high
                for low, each, high in zip(limits.low_m[:2], place[:2], limits.high_m[:2], strict=True)
            )
        ]
        if not within:
            return
        x, y, z = max(within, key=lambda place: place[2])
        here = self._tool()
        yield from self._to(lambda tool: (x - tool.x_m, y - tool.y_m, here.z_m - tool.z_m))
        low_m = max(z - _DIP_M, _LOWEST_M)
        yield from self._to(lambda tool: (x - tool.x_m, y - tool.y_m, low_m - tool.z_m))
        yield make_action(close=True)
        yield from self._to(lambda tool: (0.0, 0.0, _RISE_M - tool.z_m))

    def _in_the_air(self) -> Iterator[FloatArray]:
        yield make_action(close=True)

    def _to(self, gap: Callable[[ToolPose], tuple[float, float, float]]) -> Iterator[FloatArray]:
        """Yields steps until the gap is closed, or no step makes it smaller: something was touched."""
        left_m = math.inf
        while (now_m := math.hypot(*gap(self._tool()))) > _NEAR_M and now_m < left_m - _NEAR_M / 2:
            left_m = now_m
            yield make_action(gap(self._tool()))

    def _ended(self) -> StepResult | None:
        """Ends the episode, and has the fault in its moment while that is judged; None where that did not come."""
        results: list[StepResult] = []
        acting = threading.Thread(target=lambda: results.append(self._cell.act(make_action(terminate=True))))
        acting.start()
        if self._case.when != "begins":
            came = until(lambda: self._is_time() or not acting.is_alive(), 60.0, 0.02)
            if came and acting.is_alive():
                self._break()
        acting.join(120.0)
        if not results:
            raise RobotError("the episode did not end within two minutes")
        return results[0] if self._fault_s else None

    def _is_fair(self, result: StepResult) -> bool:
        """Whether the object that a spoilt picture should show was still held when the fingers opened."""
        return self._case.when != "let_go" or self._held(result) is (self._case.around == "object")

    def _is_time(self) -> bool:
        truth = self._sim.truth()
        if self._case.when == "let_go":
            return bool(truth["width_m"] > _OPEN_M)
        config = self._cell.environment.config
        return bool(truth["tool"][2] > config.floor_z_m + config.clear_height_m + _ABOVE_M)

    def _break(self) -> None:
        self._fault_s = time.monotonic()
        self._sim.inject(self._case.fault, **self._case.how)

    def _tool(self) -> ToolPose:
        return self._cell.robot.state().tool

    def _holds(self) -> bool:
        return until(lambda: self._sim.truth()["holding"], 0.3, 0.02)

    def _judge(self, result: StepResult, tries: int, late_s: float) -> Told:
        case, sim, ended_s = self._case, self._sim, time.monotonic()
        assert result.outcome is not None
        label, fingers_m = result.outcome.name.lower(), sim.opening_m()
        until(lambda: not sim.truth()["moving"], 5.0, 0.02)
        stood_s = time.monotonic()
        time.sleep(_WATCH_S)
        later = course(sim.trace(stood_s), stood_s)
        held = self._held(result)
        troubles = wrong_label(case, result.outcome, held=held)
        yields_m = _GRIP_N / YIELDS_N_M if result.outcome is Outcome.ABORTED else 0.0
        if not later.way_m <= STAYS_M + yields_m:
            troubles.append(f"it moved by itself afterwards, by {1e3 * later.way_m:.1f} mm")
        if abs(sim.opening_m() - fingers_m) > _YIELD_M:
            troubles.append("the fingers moved afterwards")
        took_s = ended_s - self._fault_s
        return Told(
            case.name,
            sim.protocol,
            label,
            f"{label.replace('_', ' ')} after {took_s:.0f} s: {_why(result)}; in truth {_HELD[held]}",
            "; ".join(troubles),
            tries,
            late_s,
            {"took_s": round(took_s, 2), "held": held, "way_afterwards_m": round(later.way_m, 5)},
        )

    def _held(self, result: StepResult) -> bool | None:
        began_s, judged_s = result.metadata.get("last_action_s"), result.metadata.get("judged_s")
        assert isinstance(began_s, float)
        assert isinstance(judged_s, float)
        return read_truth([self._truth])[self._cell.cell.cell].held(began_s, judged_s)


def wrong_label(case: GraspCase, outcome: Outcome, *, held: bool | None) -> list[str]:
    """Returns in words what is wrong with a label where ``held`` is the truth; None: it is not known."""
    label = outcome.name.lower()
    troubles = []
    if label not in case.labels:
        troubles.append(f"the label is {label}, expected {' or '.join(case.labels)}")
    decided = outcome not in (Outcome.ABORTED, Outcome.UNKNOWN)
    if decided and held is not (outcome is Outcome.SUCCESS):
        troubles.append(f"the label is {label}, but the truth is {_HELD[held]}")
    return troubles


_HELD: Final = {True: "held", False: "not held", None: "not recorded"}


def _why(result: StepResult) -> str:
    """Returns the reason that stands in the episode."""
    verdict: Any = result.metadata.get("verdict")
    return str(verdict["reason"] if isinstance(verdict, dict) else result.metadata.get("abort", "no word"))
