"""Protective stops that a cell may clear by itself, and what it does when the controller refuses, or only says so."""

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from qtopt.errors import RobotError
from qtopt.interfaces import ResetResult, StepResult
from qtopt.specs import make_action
from qtopt.types import JsonValue, Outcome
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.places import STATE_VARIABLE
from sim.faults.cases import ClearCase
from sim.faults.cells import SPEED_M_S, SimulatedCell, until
from sim.faults.judge import Sample, allowed, course, overrun
from sim.faults.lateness import Lateness
from sim.faults.run import STAYS_M
from sim.faults.told import Told

_log = logging.getLogger(__name__)
_ALLOWED: Final = "\n[recovery]\nauto_recover = true\n"
_STEP_M: Final = 0.10
_WITHIN_S: Final = 0.2
_REFUSED_S: Final = 10.0
_WAIT_S: Final = 6.0
"""Of ``[recovery]``: so long after the stop at the earliest."""
_BEGINS_S: Final = 60.0
_LOCKS_S: Final = 120.0
_RISE_M: Final = 0.025
"""Of the 30 mm straight up at 20 mm/s that come first."""
_RISE_M_S: Final = 0.025
_ASIDE_M: Final = 0.003


def run(protocol: str, cases: Sequence[ClearCase], directory: Path, host: str) -> Iterator[Told]:
    """Yields what came of each case, all of them at one arm, each in a cell that has had no stop before."""
    with SimulatedCell(protocol, directory, host) as sim:
        sim.path.write_text(sim.path.read_text() + _ALLOWED)
        for number, case in enumerate(cases):
            os.environ[STATE_VARIABLE] = str(directory / f"state-{number}")
            try:
                yield _run(case, sim)
            except (RobotError, OSError) as error:
                _log.exception("%s", case.name)
                yield Told(case.name, protocol, "none", "", f"{type(error).__name__}: {error}")
            finally:
                sim.heal()


def _run(case: ClearCase, sim: SimulatedCell) -> Told:
    ending = threading.Event()
    with contextlib.closing(PhysicalCell(sim.path, 72, stop=ending.is_set)) as cell, Lateness() as lateness:
        begun: list[ResetResult] = []
        beginning = threading.Thread(target=lambda: begun.append(cell.start_episode()), name="next episode")
        stop = _Stop(case, sim, cell)
        try:
            result, stopped_s = stop.have()
            beginning.start()
            stop.clear(beginning, stopped_s)
            stop.demand(begun, "the next episode did not begin")
        finally:
            ending.set()
            if beginning.ident is not None:
                beginning.join(_BEGINS_S)
    label = "none" if result.outcome is None else result.outcome.name.lower()
    stop.demand(result.outcome is Outcome.ABORTED, f"the label is {label}, expected aborted")
    seen, troubles = "; ".join(stop.seen), "; ".join(stop.troubles)
    return Told(case.name, sim.protocol, label, seen, troubles, 1, lateness.most_s, stop.measured)


class _Stop:
    """A protective stop and what followed.

    Attributes:
        seen: in words, one after the other.
        troubles: what was not as it must be.
        measured: in numbers.
    """

    def __init__(self, case: ClearCase, sim: SimulatedCell, cell: PhysicalCell) -> None:
        self._case, self._sim, self._cell = case, sim, cell
        self.seen: list[str] = []
        self.troubles: list[str] = []
        self.measured: dict[str, JsonValue] = {}

    def have(self) -> tuple[StepResult, float]:
        """Has the controller stop in the middle of an action; returns the action's end and when that was."""
        cell, sim = self._cell, self._sim
        cell.start_episode(0)
        results: list[StepResult] = []
        away = -1.0 if cell.robot.state().tool.y_m > 0 else 1.0
        action = make_action((0.0, away * _STEP_M, 0.0))
        acting = threading.Thread(target=lambda: results.append(cell.act(action)))
        acting.start()
        if not until(lambda: abs(sim.truth()["twist"][1]) > 0.5 * SPEED_M_S, 20.0, 0.002):
            acting.join(30.0)
            raise RobotError(f"the arm did not set off: {results}")
        with Lateness() as lateness:
            stopped_s = time.monotonic()
            if self._case.obstacle:
                sim.inject(self._case.obstacle)
            sim.inject("protective_stop")
            acting.join(40.0)
            until(lambda: not sim.truth()["moving"], 5.0, 0.02)
            late_s = lateness.most_s
        way = course(sim.trace(stopped_s - 0.1), stopped_s)
        self.troubles += overrun(way, allowed(SPEED_M_S, _WITHIN_S, late_s))
        self.demand(cell.places.latched() is None, "motion was locked, which [recovery] does not ask for")
        self.seen.append(f"stood after {way.stood_s:.2f} s and {1e3 * way.way_m:.0f} mm")
        self.measured |= {"stood_s": way.stood_s, "way_m": way.way_m}
        if not results:
            raise RobotError("the action did not end within 40 s")
        return results[0], stopped_s

    def clear(self, beginning: threading.Thread, stopped_s: float) -> None:
        """Watches the next episode's begin; takes a refusal back after a while, or comes as a person after a lie."""
        case, sim, cell = self._case, self._sim, self._cell
        stood_s = time.monotonic()
        if case.obstacle == "unlock_lies":
            locked = until(lambda: cell.places.latched() is not None, _LOCKS_S, 0.1)
            lock = cell.places.latched()
            if not locked or lock is None:
                raise RobotError(f"nothing locked motion within {_LOCKS_S:.0f} s")
            self.demand(lock.rule in {"no_episode", "recovery"} or "recover" in lock.reason, f"locked by {lock.rule}")
            time.sleep(1.0)
            self._demand_rest(stood_s, time.monotonic())
            self.seen.append(f"locked by `{lock.rule}` after {time.monotonic() - stopped_s:.0f} s")
            sim.heal()
            sim.unlock(cell.places)
            beginning.join(_BEGINS_S)
            self.seen.append("went on when a person had come")
            return
        if case.obstacle:
            time.sleep(max(0.0, stopped_s + _REFUSED_S - time.monotonic()))
            self._demand_rest(stood_s, time.monotonic())
            sim.inject(case.obstacle, on=False)
        beginning.join(_BEGINS_S)
        self.demand(cell.places.latched() is None, "motion was locked")
        self._judge_rise(sim.trace(stood_s), stopped_s)

    def _demand_rest(self, since_s: float, until_s: float) -> None:
        way_m = course([each for each in self._sim.trace(since_s) if each[0] <= until_s], since_s).way_m
        self.demand(way_m <= STAYS_M, f"it moved by {1e3 * way_m:.1f} mm while its stop was not cleared")

    def _judge_rise(self, trace: Sequence[Sample], stopped_s: float) -> None:
        """Demands that the first motion came late enough, was slow, and led straight up."""
        first = trace[0]
        began = next((each for each in trace if math.dist(each[1:4], first[1:4]) > STAYS_M), None)
        risen = next((each for each in trace if each[3] > first[3] + _RISE_M), None)
        if began is None or risen is None:
            self.troubles.append("it did not rise")
            return
        waited_s, took_s = began[0] - stopped_s, risen[0] - began[0]
        aside_m = max(math.dist(each[1:3], first[1:3]) for each in trace if each[0] <= risen[0])
        least_s = _REFUSED_S if self._case.obstacle else _WAIT_S
        self.demand(waited_s >= least_s, f"it moved {waited_s:.1f} s after its stop, expected {least_s:.0f} s at least")
        self.demand(_RISE_M / took_s <= _RISE_M_S, f"it rose at {1e3 * _RISE_M / took_s:.0f} mm/s")
        self.demand(aside_m <= _ASIDE_M, f"it went {1e3 * aside_m:.0f} mm aside before it had risen")
        self.seen.append(f"rose after {waited_s:.1f} s at {1e3 * _RISE_M / took_s:.0f} mm/s; the next episode began")
        self.measured |= {"waited_s": round(waited_s, 2), "rose_m_s": round(_RISE_M / took_s, 4)}

    def demand(self, so: object, otherwise: str) -> None:
        """Notes what is wrong where something is not so."""
        if not so:
            self.troubles.append(otherwise)
