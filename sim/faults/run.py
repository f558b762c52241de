"""Running cases against a cell: an episode's action is under way, something fails, and what follows is judged."""

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest import mock

from qtopt.errors import RobotError
from qtopt.interfaces import StepResult
from qtopt.specs import make_action
from qtopt.types import FloatArray, Outcome
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.places import Places
from robot_bridge.cell_file import load_cell_file
from sim.faults.cases import Case
from sim.faults.cells import SLOW_M_S, SPEED_M_S, SimulatedCell, until
from sim.faults.judge import Course, allowed, course, descent, overrun
from sim.faults.lateness import Lateness

_log = logging.getLogger(__name__)
STAYS_M: Final = 0.001
YIELDS_N_M: Final = 7000.0
"""A pushed hand gives way, and comes back when the push ends."""
RISES_M: Final = 0.02
"""At least, of the 30 mm that lead out of a contact."""
_STEP_M: Final = 0.10
_CLOSED_M: Final = 0.01
_WATCH_S: Final = 1.2
_BEFORE_S: Final = 0.3
_TRIES: Final = 4
_FAIR_S: Final = 0.15
"""Where this machine woke somebody later than this, a failure proves nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a case.

    Attributes:
        case: its name.
        protocol: of the cell.
        label: of the episode.
        rule: that locked motion, or ended the action; empty for none.
        latched: motion was locked.
        stood_s: after the fault, the tool stood for good.
        way_m: it went on.
        allowed_s: it had to stand by then,
        allowed_m: and within this way: reaction and braking, and by how much this machine was late meanwhile.
        late_s: that lateness.
        tries: the cell was locked by lateness before the fault, or did not come up, in all but the last.
        failure: what was not as it must be; empty for nothing.
    """

    case: str
    protocol: str
    label: str
    rule: str
    latched: bool
    stood_s: float
    way_m: float
    allowed_s: float
    allowed_m: float
    late_s: float
    tries: int
    failure: str


class Matrix:
    """A cell in which one case after the other is run; may be used in a ``with`` statement.

    Args:
        sim: the simulated cell.
    """

    def __init__(self, sim: SimulatedCell) -> None:
        self._sim = sim
        self._cell: PhysicalCell | None = None

    def __enter__(self) -> "Matrix":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the cell's processes."""
        if self._cell is not None:
            self._cell.close()
            self._cell = None

    def run(self, case: Case) -> Finding:
        """Runs a case and puts everything right again; once more where there was no fair try on a busy machine."""
        for tries in range(1, _TRIES + 1):
            try:
                finding = self._run(case, tries)
            except (RobotError, OSError, ValueError) as error:
                _log.exception("%s", case.name)
                self.close()
                finding = _failed(case, self._sim.protocol, tries, f"{type(error).__name__}: {error}")
            finally:
                self._restore()
            fair = finding.late_s < _FAIR_S and finding.label != "none"
            if fair or not finding.failure:
                break
        return finding

    def _run(self, case: Case, tries: int) -> Finding:
        cell = self._begin(case)
        sim = self._sim
        results: list[StepResult] = []
        action = self._action(case, cell)
        acting = threading.Thread(target=lambda: results.append(cell.act(action)))
        fault = self._fault(case, cell)
        # A gripper takes its widest for the plant's, which opens further before it is first told to.
        width_m = cell.robot.state().gripper_width_m if case.grips else sim.opening_m()
        acting.start()
        if not until(lambda: _is_under_way(case, sim.truth(), width_m), 20.0, 0.002):
            acting.join(30.0)
            raise RobotError(f"the arm did not set off: {results}")
        with Lateness() as lateness:
            fault_s = time.monotonic()
            fault.__enter__()
            try:
                acting.join(40.0)
                stood = until(lambda: self._stands(sim), 8.0, 0.05)
                latched = until(lambda: cell.places.latched() is not None, 4.0 if case.reaction == "latch" else 0.3)
            finally:
                fault.__exit__(None, None, None)
        until(lambda: not _is_being_written(cell), 2.0)
        latch = cell.places.latched()
        sim.heal()
        healed_s = time.monotonic()
        time.sleep(_WATCH_S)
        trace = sim.trace(fault_s - _BEFORE_S)
        faulty = [each for each in trace if each[0] <= healed_s]
        seen = descent(faulty, fault_s) if case.rises else course(faulty, fault_s)
        later = course(trace, healed_s)
        truth = sim.truth()
        result = results[0] if results else None
        words = str(result.metadata.get("abort", "")) if result is not None and result.outcome is not None else ""
        rule = latch.rule if latch is not None else _rule_in(words)
        finding = _judge(case, sim.protocol, seen, later, result, rule, lateness.most_s, tries, latched=latched)
        troubles = [finding.failure] if finding.failure else []
        if not stood:
            troubles.append("it was not seen to stand")
        if case.rises and case.reaction == "stop" and truth["tool"][2] - min(each[3] for each in trace) < RISES_M:
            troubles.append("it was not led up")
        if abs(sim.opening_m() - width_m) > 0.002:
            troubles.append(f"the fingers went from {width_m:.3f} to {sim.opening_m():.3f} m")
        return replace(finding, failure="; ".join(troubles))

    def _begin(self, case: Case) -> PhysicalCell:
        """Returns the cell in an episode, the tool where the action has room."""
        if self._cell is None:
            self._cell = PhysicalCell(self._sim.path, 72, stop=lambda: True)
        cell = self._cell
        cell.start_episode(0)
        edge = make_action((0.0, 0.0, 0.0) if case.down else (0.0, -self._away(cell) * _STEP_M, 0.0))
        if cell.act(edge).outcome is not None:
            raise RobotError("the episode ended before the fault")
        return cell

    def _action(self, case: Case, cell: PhysicalCell) -> FloatArray:
        if case.grips:
            return make_action(close=True)
        return make_action((0.0, 0.0, -_STEP_M) if case.down else (0.0, self._away(cell) * _STEP_M, 0.0))

    def _away(self, cell: PhysicalCell) -> float:
        """Returns the direction along y in which there is more room."""
        return -1.0 if cell.robot.state().tool.y_m > 0 else 1.0

    @contextlib.contextmanager
    def _fault(self, case: Case, cell: PhysicalCell) -> Iterator[None]:
        if case.target == "controller":
            self._sim.inject(case.fault, **case.how)
            if case.lasts_s:
                time.sleep(case.lasts_s)
                self._sim.heal()
            yield
        elif case.target == "clock":
            now_s = time.time
            with mock.patch("time.time", side_effect=lambda: now_s() + float(case.fault)):
                yield
        else:
            processes = cell.robot.processes
            number = getattr(signal, case.fault)
            if case.target == "server":
                self._sim.signal(number)
                time.sleep(2.0)
                self._sim.signal(signal.SIGCONT)
            else:
                pids = {"arm": processes.arm.pid, "safety": processes.safety.pid, "camera": cell.camera.process_id}
                os.kill(pids[case.target], number)
            yield

    def _stands(self, sim: SimulatedCell) -> bool:
        before = sim.truth()
        time.sleep(0.15)
        return math.dist(before["tool"][:3], sim.truth()["tool"][:3]) < 2e-4

    def _restore(self) -> None:
        """Heals the simulated cell and acknowledges, as a person would after a look."""
        self._sim.heal()
        time.sleep(0.3)
        places = Places(load_cell_file(self._sim.path))
        if places.latched() is not None:
            places.latch_file.acknowledge("the fault matrix", "the fault was taken back")
        if self._cell is not None:
            self._cell.camera.acknowledge()


def _is_being_written(cell: PhysicalCell) -> bool:
    latch = cell.places.latched()
    return latch is not None and latch.rule == "latch_file"


def _is_under_way(case: Case, truth: Mapping[str, Any], width_m: float) -> bool:
    if case.grips:
        return bool(truth["width_m"] < width_m - _CLOSED_M)
    axis, speed_m_s = (2, SLOW_M_S) if case.down else (1, SPEED_M_S)
    return bool(abs(truth["twist"][axis]) > 0.8 * speed_m_s)


def _rule_in(words: str) -> str:
    return words.partition("by the rule ")[2].partition(":")[0]


def _judge(
    case: Case,
    protocol: str,
    seen: Course,
    later: Course,
    result: StepResult | None,
    rule: str,
    late_s: float,
    tries: int,
    *,
    latched: bool,
) -> Finding:
    label = "none" if result is None else ("goes on" if result.outcome is None else result.outcome.name.lower())
    if case.reaction == "any":
        case = (
            replace(case, reaction="latch", label="aborted")
            if latched
            else replace(case, reaction="nothing", label="goes on")
        )
    most = allowed(SPEED_M_S, case.within_s, late_s)
    troubles = []
    if label != case.label:
        troubles.append(f"the label is {label}, expected {case.label}")
    if latched != (case.reaction == "latch"):
        troubles.append("motion is locked" if latched else "motion is not locked")
    if case.rules and rule not in case.rules and case.label == Outcome.ABORTED.name.lower():
        troubles.append(f"the rule is {rule or 'none'}, expected {' or '.join(case.rules)}")
    if case.reaction != "nothing" or case.rises:
        troubles += overrun(seen, most)
    push_n = math.hypot(*case.how.get("force_n", (0.0,)))
    if not later.way_m <= STAYS_M + push_n / YIELDS_N_M:
        troubles.append(f"it moved by itself afterwards, by {1e3 * later.way_m:.1f} mm")
    return Finding(
        case.name, protocol, label, rule, latched, seen.stood_s, seen.way_m, most.stood_s, most.way_m, late_s, tries,
        "; ".join(troubles),
    )  # fmt: skip


def _failed(case: Case, protocol: str, tries: int, why: str) -> Finding:
    nowhere = Course(math.nan, math.nan, math.nan, math.nan)
    finding = _judge(case, protocol, nowhere, nowhere, None, "", 0.0, tries, latched=False)
    return replace(finding, failure=why)
