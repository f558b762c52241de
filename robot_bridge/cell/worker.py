"""The thread of the arm's process that makes connections and motions, one after the other, each with a deadline.

What ends a motion early is decided elsewhere, by the ticks of ``robot_bridge.cell.arm_child``; here it is only said.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import replace
from typing import Final

from qtopt.errors import QtOptError, RobotError
from robot_bridge.cell.ask import Ask, said
from robot_bridge.cell.channel import Message
from robot_bridge.cell.fingers import Fingers
from robot_bridge.contracts import (
    Arm,
    ArmState,
    Gripper,
    GripperState,
    MotionCommand,
    MotionOutcome,
    MotionResult,
    Pose,
    Reaction,
    Verdict,
)
from robot_bridge.safety.facts import Phase, is_at_least
from robot_bridge.safety.monitor import CellSafetyMonitor
from robot_bridge.safety.region import Point
from robot_bridge.safety.rules import EASED, PRESSED, RECOVERABLE_MODES, TOUCHED

_log = logging.getLogger(__name__)
_RISES: Final = 2
"""The stop that belongs to the contact may come as a first rise out of it begins, and end it."""
_SETTLE_S: Final = 0.1
"""An arm that was braked presses hardest a moment later; a way out begins with that, and may not make it worse."""
_WAYS_OUT: Final = 3
"""Ways out of one press in an episode: back along the tool's way and up, then straight up."""
_YIELDS: Final = 10
"""Rises while the fingers move: 4 mm each."""
_YIELD_LOOK_S: Final = 0.01
_READY_S: Final = 3.0
_ZERO_S: Final = 1.0
_FORCES: Final = 20
_READY_LOOK_S: Final = 0.05
_MOVES: Final = ("move", "lead_out", "grip", "activate", "auto_recover")


class Worker:
    """Carries out what is asked of arm and gripper.

    Args:
        arm: connected here, so that the thread that moves it is the one that made it.
        gripper: the same; None for an arm without one.
        monitor: judges every motion before it is sent.
        judging: held while the monitor is asked.
        barred: returns why nothing may move now; empty where it may.
        reply: sends an answer.
        entered: told of each phase that was entered.
        clears: told where a stop is about to be cleared without a person; where it raises RobotError none is.
        rise: gives the motion that leads out of a contact, by the rule that ended the one before, and by whether the
            tool was on its way then.
    """

    def __init__(
        self,
        arm: Arm,
        gripper: Gripper | None,
        monitor: CellSafetyMonitor,
        judging: threading.Lock,
        barred: Callable[[], Verdict | None],
        reply: Callable[[Message], None],
        entered: Callable[[Phase], None],
        clears: Callable[[Point], None],
        rise: Callable[[str, bool], MotionCommand],
    ) -> None:
        self._arm, self._gripper, self._monitor, self._judging = arm, gripper, monitor, judging
        self._barred, self._reply, self._entered = barred, reply, entered
        self._clears, self._rise = clears, rise
        self._asks: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.fingers = Fingers(gripper, barred)
        self.current: Ask | None = None
        self.connected = threading.Event()
        self.failure: Exception | None = None

    def start(self, deadline_s: float) -> None:
        """Begins with connecting, without any motion; ``connected`` or ``failure`` is set when that has ended."""
        self._deadline_s = deadline_s
        self._thread.start()

    def put(self, message: Message) -> None:
        """Takes what is asked for; answered in turn."""
        self._asks.put(message)

    def end(self, wait_s: float) -> None:
        """Ends the threads when what is under way has ended, and frees arm and gripper."""
        self._asks.put(None)
        if self._thread.is_alive():
            self._thread.join(wait_s)
        self.fingers.end(wait_s)
        for part in (self._gripper, self._arm):
            if part is not None:
                try:
                    part.close()
                except RobotError as error:
                    _log.warning("closing: %s", error)

    def _run(self) -> None:
        try:
            self._arm.connect(self._deadline_s)
            self.fingers.connect(self._deadline_s)
        except Exception as error:  # a vendor's library may raise anything; the collector gets to know
            self.failure = error
            return
        self.connected.set()
        self.fingers.start()
        while (message := self._asks.get()) is not None:
            self._reply({"id": message["id"], **self._answer(message)})

    def _answer(self, message: Message) -> Message:
        ask = Ask(message)
        self.current = ask
        try:
            # Looked at after ``current`` was set: whoever bars motion from now on finds it and brakes.
            barred = self._barred() if message["do"] in _MOVES else None
            if barred is not None:
                return said(MotionResult(MotionOutcome.REJECTED, barred.reason), barred)
            result = self._do(ask)
            touched = ask.ended_by
            if isinstance(result, MotionResult) and touched is not None and touched.rule in EASED:
                result = self._relieve(ask, touched, result)
            if message["do"] in _MOVES and ask.was_ended_by(PRESSED):  # also on the way out of what it touched
                return self._after_press(ask, result)
            if not isinstance(result, MotionResult):
                return result
            return said(result, ask.ended_by)
        except QtOptError as error:
            return {"error": str(error)}
        except Exception as error:
            _log.exception("%s failed", message["do"])
            return {"error": f"{message['do']} failed: {type(error).__name__}: {error}"}
        finally:
            self.current = None

    def _do(self, ask: Ask) -> MotionResult | Message:
        message = ask.message
        do = message["do"]
        if do == "move":
            return self._move(message)
        if do == "may_move":
            return self._may_move()
        if do == "enter":
            return self._enter(Phase(message["phase"]))
        if do == "lead_out":
            return self._lead_out(ask, under_way=False)
        if do == "auto_recover":
            return self._recover(ask)
        if do in ("grip", "activate"):
            return self._use_gripper(ask)
        if do == "zero_wrench":
            self._zero_wrench()
        elif do == "recover":
            self._arm.recover()
        elif do != "nothing":
            raise RobotError(f"found the request {do!r}, which this process does not know")
        return {}

    def _zero_wrench(self) -> None:
        """Takes the force on a tool that hangs free as zero, and sees that it is."""
        before_n = self._mean_force_n()
        self._arm.zero_wrench()
        time.sleep(_READY_LOOK_S)  # the newest report may still be of before
        deadline = time.monotonic() + _ZERO_S
        while not self._monitor.is_free(state := self._arm.state()):
            if time.monotonic() > deadline:
                raise RobotError(
                    f"the arm reports {state.force_n:.0f} N on a tool that hangs free, just after it was zeroed, "
                    "expected next to none: see whether the payload is right, and whether this arm can zero its force"
                )
            time.sleep(_READY_LOOK_S)
        if refusal := self._monitor.was_zeroed(before_n, self._mean_force_n()):
            raise RobotError(refusal)

    def _mean_force_n(self) -> Point | None:
        """Returns the mean force on a tool that stands [N]; None where the arm reports none."""
        forces = []
        for _ in range(_FORCES):
            wrench = self._arm.state().wrench
            if wrench is None:
                return None
            forces.append(wrench[:3])
            time.sleep(_YIELD_LOOK_S)
        x, y, z = (sum(axis) / _FORCES for axis in zip(*forces, strict=True))
        return x, y, z

    def _move(self, message: Message) -> MotionResult:
        pose = message["target"]
        command = MotionCommand(
            Pose(tuple(pose[:3]), tuple(pose[3:])), message["speed"], message["accel"], message["yaw_rate"]
        )
        return self._send(command, message["deadline_s"])

    def _send(self, command: MotionCommand, deadline_s: float) -> MotionResult:
        # A lock or a stop may have come since this was asked for.
        verdict = self._barred() or (self.current.told if self.current is not None else None)
        if verdict is None:
            with self._judging:
                verdict = self._monitor.filter(command, self._arm.state(), time.monotonic_ns())
        if is_at_least(verdict, Reaction.HOLD):
            if self.current is not None:
                self.current.ended_by = verdict
            return MotionResult(MotionOutcome.REJECTED, verdict.reason)
        command = verdict.command or command
        if self.current is not None:
            self.current.set_off = True
        return self._arm.move_to(command.target, command.speed_m_s, command.accel_m_s2, deadline_s)

    def _may_move(self) -> Message:
        verdict = self._barred()
        if verdict is None:
            with self._judging:
                verdict = self._monitor.may_move(self._arm.state(), time.monotonic_ns())
        if is_at_least(verdict, Reaction.HOLD):
            return said(MotionResult(MotionOutcome.REJECTED, verdict.reason), verdict)
        return {}

    def _enter(self, phase: Phase) -> Message:
        with self._judging:
            verdict = self._monitor.enter(phase, time.monotonic_ns())
        if is_at_least(verdict, Reaction.HOLD):
            return said(MotionResult(MotionOutcome.REJECTED, verdict.reason), verdict)
        self._entered(phase)
        return {}

    def _relieve(self, ask: Ask, touched: Verdict, result: MotionResult) -> MotionResult:
        """Rises, or steps back, a little out of what ended a motion: it presses less then."""
        set_off = ask.set_off
        risen = self._rise_out(ask, touched.rule, 5.0, under_way=set_off)
        ask.set_off = set_off  # by what was asked for: only along that leads a way back
        if not is_at_least(ask.ended_by, Reaction.STOP):
            ask.ended_by = touched
        return replace(result, pose=risen.pose or result.pose)

    def _after_press(self, ask: Ask, result: MotionResult | Message) -> Message:
        """Leads the tool out of the contact that ended ``ask`` with ``result``; an episode goes on from there.

        Fingers whose motion pressed go back first, to where they were.
        """
        pressed, phase = ask.ended_by, self._monitor.phase
        place = ", ".join(f"{each:.3f}" for each in self._arm.state().pose.position_m)
        _log.warning("leaving a contact at %s: %s", place, "" if pressed is None else pressed.reason)
        under_way = ask.message["do"] == "move" and ask.set_off
        if phase is Phase.EPISODE and isinstance(result, dict) and ask.opening_m is not None:
            undone = self._undo(ask, ask.opening_m)
            if undone and ask.told is None and not self._enter(phase):
                return result | undone
            result |= undone
        for number in range(_WAYS_OUT if phase is Phase.EPISODE else 1):
            risen = self._lead_out(ask, under_way=number == 0 and under_way)
            if ask.told is not None or ask.was_ended_by_another_than(PRESSED):
                break
            free = risen.outcome is MotionOutcome.REACHED and ask.ended_by is None
            if free and phase is Phase.EPISODE and not self._enter(phase):
                contact = MotionResult(MotionOutcome.CONTACT, risen.reason, risen.pose)
                return said(contact, pressed) if isinstance(result, MotionResult) else result
        ended = result if isinstance(result, MotionResult) else MotionResult(MotionOutcome.STOPPED)
        return said(ended, pressed)

    def _undo(self, ask: Ask, opening_m: float) -> Message:
        """Moves the fingers back to an opening; returns nothing where they may not move, or did not."""
        try:
            if self._arm.state().mode in RECOVERABLE_MODES:
                return {}
            moving, began_s = self.fingers.send(ask, opening_m), time.monotonic()
            while not wait([moving], _YIELD_LOOK_S).done:
                self.fingers.require_in_time(ask, moving, began_s)
            return {**_width(moving.result()), "undone": True}
        except RobotError as error:
            _log.warning("the fingers did not go back: %s", error)
            return {}

    def _lead_out(self, ask: Ask, *, under_way: bool) -> MotionResult:
        """Leads the tool out of a contact, slowly; what follows has to be entered anew."""
        time.sleep(_SETTLE_S)
        refused = self._enter(Phase.RETRACT)
        if refused:
            return MotionResult(MotionOutcome.REJECTED, refused["reason"])
        risen = self._rise_out(ask, PRESSED, 10.0, under_way=under_way)
        if risen.outcome is not MotionOutcome.REACHED:
            _log.warning("the tool was not led out of the contact: %s %s", risen.outcome.value, risen.reason)
        return risen

    def _rise_out(self, ask: Ask, rule: str, deadline_s: float, *, under_way: bool) -> MotionResult:
        """Rises as far as ``rule`` asks for, again where its own late stop ends that; another stop is the end of it."""
        for _ in range(_RISES):
            ask.ended_by = None
            risen = self._send(self._rise(rule, under_way), deadline_s)
            if risen.outcome is MotionOutcome.REACHED or ask.was_ended_by_another_than(rule):
                break
        return risen

    def _recover(self, ask: Ask) -> Message:
        """Clears a protective stop without a person where the monitor allows that, and leads the tool up a little."""
        state = self._arm.state()
        with self._judging:
            verdict = self._monitor.may_recover(state, time.monotonic_ns())
        if verdict.reaction is not Reaction.ALLOW or verdict.command is None:
            return said(MotionResult(MotionOutcome.REJECTED, verdict.reason), verdict)
        self._clears(state.pose.position_m)
        ask.clearing = True
        try:
            self._arm.recover()
            deadline = time.monotonic() + _READY_S
            while not _is_ready(self._arm.state()) and time.monotonic() < deadline:
                time.sleep(_READY_LOOK_S)
        finally:
            ask.clearing = False
        ask.ended_by = None  # by the stop that is cleared now
        return self._enter(Phase.RETRACT) or said(self._send(verdict.command, 10.0), ask.ended_by)

    def _use_gripper(self, ask: Ask) -> Message:
        """Moves the fingers; the arm yields upwards while what they close on bears it.

        Fingers that close under a load wedge themselves in, and press several times as hard as their motor.
        """
        if ask.message["do"] == "grip" and self.fingers.state is not None:
            ask.opening_m = self.fingers.state.width_m
        moving = self.fingers.send(ask, ask.message.get("width"))
        yields, trouble = 0, None
        began_s = time.monotonic()
        while not wait([moving], _YIELD_LOOK_S).done:
            self.fingers.require_in_time(ask, moving, began_s)
            held = is_at_least(ask.ended_by, Reaction.STOP) or ask.told is not None
            free = not held and ask.message["do"] == "grip"
            if not free or yields == _YIELDS or trouble is not None:
                continue
            try:
                if self._monitor.is_borne(self._arm.state()):
                    yields += 1
                    self._rise_out(ask, TOUCHED, 2.0, under_way=False)
            except RobotError as error:
                trouble = error
        state = moving.result()
        if trouble is not None:
            raise trouble
        if yields:
            _log.info("the arm yielded %d times to what bore the closing fingers", yields)
        return {**_width(state), "yields": yields, "widths": self.fingers.width_range_m}


def _width(state: GripperState) -> Message:
    return {"width": state.width_m, "at_ns": state.t_host_ns}


def _is_ready(state: ArmState) -> bool:
    return state.mode.can_move and state.program_running
