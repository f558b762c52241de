"""The arm's process: it alone holds the vendor's library, and it can be killed at any time.

Its main thread never waits for a motion: a hundred times a second and more it reads the arm, asks the safety monitor,
looks whether the collector and the safety process live, brakes where one of them says so, and writes what it saw to the
board. A thread beside it carries out what the collector asks for. Whatever ends this process, the arm is told to stop
first where that is still possible; where it is not, the safety process does it.
"""

import contextlib
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from qtopt.errors import RobotError
from robot_bridge.cell import parts
from robot_bridge.cell.ask import Ask, Unheard
from robot_bridge.cell.channel import Channel, ChannelClosed, Message, failure
from robot_bridge.cell.launch import die_at_once, prefer
from robot_bridge.cell.places import Places
from robot_bridge.cell.records import Report, pack_report, stands
from robot_bridge.cell.shared import Board, Member
from robot_bridge.cell.worker import Worker
from robot_bridge.cell_file import CellFile
from robot_bridge.contracts import Arm, ArmState, Gripper, MotionCommand, Reaction, Verdict
from robot_bridge.safety.commands import straight_up
from robot_bridge.safety.facts import CellFacts, Heartbeat, Phase, is_at_least, worst
from robot_bridge.safety.monitor import CellSafetyMonitor
from robot_bridge.safety.rules import EASED, FROM_ASIDE, TOUCHED

_log = logging.getLogger(__name__)
_TICK_S: Final = 0.008
_AGAIN_S: Final = 0.1
_BRAKE_FOR_S: Final = 3.0
_CONNECT_S: Final = 15.0
_CLOSE_S: Final = 10.0
"""A vendor's library that takes longer to say goodbye is left without."""
_HUNG: Final = 8
_ALLOW: Final = Verdict(Reaction.ALLOW)
_WATCHED_WITHIN_S: Final = 0.5
_RELIEF_M: Final = 0.004
"""So far up, or back, at the end of a motion on something: a stiff arm goes on pressing where it was stopped."""


class ArmChild:
    """The main thread's work.

    Args:
        cell: what the cell file says.
        arm: unconnected.
        gripper: unconnected; None for none.
        monitor: judges commands and reports.
        board: shared with collector and safety process.
        collector: channel to the collector.
        safety: channel to the safety process.
        places: where the latch is kept.
    """

    def __init__(
        self,
        cell: CellFile,
        arm: Arm,
        gripper: Gripper | None,
        monitor: CellSafetyMonitor,
        board: Board,
        collector: Channel,
        safety: Channel,
        places: Places,
    ) -> None:
        self._cell, self._arm, self._monitor, self._board, self._places = cell, arm, monitor, board, places
        self._collector, self._safety = collector, safety
        self._judging = threading.Lock()
        self._worker = Worker(
            arm,
            gripper,
            monitor,
            self._judging,
            self._barred,
            self._reply,
            self._entered,
            places.cleared.add,
            self._rise,
        )
        self._gripper = gripper
        self._unheard = Unheard(cell.watchdog.collector_hold_s)
        self._holding = threading.Lock()
        self._facts, self._facts_ns = CellFacts(), 0
        self._state: ArmState | None = None
        self._latch = "" if monitor.latched is None else f"{monitor.latched.rule}: {monitor.latched.reason}"
        self._note = ""
        self._watched = self._safety_gone = False
        self._announced = False
        self._leaving = ""
        self._stopping_since: float | None = None
        self._braked_at = 0.0
        self._held: Ask | None = None
        self._stood = False
        self._locking: threading.Thread | None = None

    def run(self) -> int:
        """Works until the collector ends it or is gone; returns the exit code."""
        signal.signal(signal.SIGTERM, lambda *_: self._leave("the arm's process was told to end"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._worker.start(_CONNECT_S)
        due = time.monotonic()
        while not self._leaving:
            due = max(due + _TICK_S, time.monotonic())
            self._listen(due)
            self._board.beat(Member.ARM)
            if self._worker.failure is not None:
                self._reply(failure(self._worker.failure))
                self._tell_safety({"leaving": str(self._worker.failure)})  # nothing has moved: no reason to lock
                return 7
            if self._worker.connected.is_set():
                self._tick()
                self._announce()
        return self._end()

    def _announce(self) -> None:
        if self._announced or self._state is None:
            return
        self._announced = True
        capabilities = set(self._arm.capabilities)
        if self._gripper is not None:
            capabilities |= self._gripper.capabilities
        self._reply({"ready": True, "capabilities": sorted(capabilities)})
        self._tell_safety({"ready": True})

    def _tick(self) -> None:
        now_ns = time.monotonic_ns()
        try:
            self._state = self._arm.state()
        except RobotError as error:
            self._note = str(error)
        with self._judging:
            self._monitor.beat(Heartbeat.COLLECTOR, self._board.beat_ns(Member.COLLECTOR))
            if self._worker.current is not None:  # the policy waits for us, not we for it
                self._monitor.beat(Heartbeat.POLICY, now_ns)
            self._monitor.note(self._newest_facts(now_ns))
            judged = self._monitor.observe(self._state, now_ns)
        self._react(worst(worst(_ALLOW, judged), self._judge_safety()))
        silence_s = self._board.silence_s(Member.COLLECTOR)
        self._unheard.note(silence_s)
        if silence_s is not None and silence_s >= self._cell.watchdog.collector_stop_s:
            self._leave(f"the collector has been silent for {silence_s:.1f} s")
        report = Report(
            arm=self._state,
            gripper=self._worker.fingers.state,
            ready=True,
            moving=self._worker.current is not None,
            latch=self._latch,
            note=self._note,
        )
        self._board.arm.write(pack_report(report))

    def _judge_safety(self) -> Verdict:
        silence_s = self._board.silence_s(Member.SAFETY)
        if self._safety_gone:
            return Verdict(Reaction.LATCH, "safety_process", "the safety process is gone")
        if self._watched and silence_s is not None and silence_s > _WATCHED_WITHIN_S:
            words = f"the safety process has been silent for {silence_s:.2f} s"
            return Verdict(Reaction.LATCH, "safety_process", words)
        return _ALLOW

    def _newest_facts(self, now_ns: int) -> CellFacts:
        """Returns what the collector said last, its picture as old as it is by now, and what the gripper says."""
        age_s = self._facts.camera_age_s
        if age_s is not None:
            age_s += (now_ns - self._facts_ns) / 1e9
        return replace(self._facts, camera_age_s=age_s, gripper_fault=self._worker.fingers.fault)

    def _rise(self, rule: str, under_way: bool) -> MotionCommand:  # noqa: FBT001 (a callback's)
        """Returns the motion that leads out of a contact, from where the tool came to rest."""
        if rule == TOUCHED or (rule == FROM_ASIDE and not under_way):
            return straight_up(self._arm.state(), _RELIEF_M, self._cell.limits.slow_speed_m_s)
        with self._judging:
            if rule == FROM_ASIDE:
                return self._monitor.step_back(self._arm.state(), _RELIEF_M)
            return self._monitor.lead_out(self._arm.state(), under_way=under_way)

    def _entered(self, phase: Phase) -> None:
        self._tell_safety({"phase": phase.value})

    def _barred(self) -> Verdict | None:
        """Returns why no motion may begin now; None where it may."""
        if self._latch:
            rule, _, reason = self._latch.partition(": ")
            return Verdict(Reaction.LATCH, rule, reason)
        if self._leaving or self._safety_gone or not self._watched:
            return Verdict(Reaction.STOP, "safety_process", "the safety process does not watch; nothing is moved")
        return None

    def _react(self, verdict: Verdict) -> None:
        ask = self._worker.current
        if verdict.reaction in (Reaction.ALLOW, Reaction.CLAMP):
            if ask is not None and is_at_least(ask.ended_by, Reaction.STOP):
                self._stop()  # it may have been sent between the verdict and the stop
            else:
                self._stopping_since = None
            return
        self._note = f"{verdict.rule}: {verdict.reason}"
        if ask is not None and ask.clearing and verdict.reaction is not Reaction.LATCH:
            return
        if ask is not None and not is_at_least(ask.ended_by, verdict.reaction):
            ask.ended_by = verdict
        if verdict.reaction is Reaction.HOLD:
            self._hold(hard=verdict.rule in EASED)
            return
        locks = verdict.reaction is Reaction.LATCH and not self._latch
        if locks:  # first: nothing sets off any more
            self._latch = f"{verdict.rule}: {verdict.reason}"
        self._stop()
        if locks:
            self._lock(verdict)

    def _hold(self, *, hard: bool = False) -> None:
        """Lets the motion end, aside: a vendor's hold may take as long as braking does.

        ``hard``: with all that the arm has, for it presses harder with every millimetre.
        """
        ask, now = self._worker.current, time.monotonic()
        if ask is None or (ask is self._held and now - self._braked_at < _AGAIN_S):
            return
        if self._holding.acquire(blocking=False):
            if not hard and ask is not self._held:
                _log.warning("held by %s", self._note)
            self._held, self._braked_at = ask, now
            threading.Thread(target=self._hold_aside, kwargs={"hard": hard}, daemon=True).start()

    def _hold_aside(self, *, hard: bool) -> None:
        try:
            if hard:
                self._arm.stop(self._cell.limits.stop_decel_m_s2)
            else:
                self._arm.hold()
        except Exception as error:
            _log.warning("hold failed (%s); stopping instead", error)
            self._arm.stop(self._cell.limits.stop_decel_m_s2)
        finally:
            self._holding.release()

    def _stop(self) -> None:
        """Stops again and again until the arm stands: what was just being sent may have come after the first stop."""
        now = time.monotonic()
        if self._stopping_since is None:
            self._stopping_since, self._braked_at, self._stood = now, 0.0, False
        rests = self._worker.current is None and self._stands() and now - self._stopping_since > 2 * _AGAIN_S
        self._stood = self._stood or rests
        if not self._stood and now - self._braked_at >= _AGAIN_S:
            self._braked_at = now
            self._arm.stop(self._cell.limits.stop_decel_m_s2)

    def _stands(self) -> bool:
        """Returns whether a report that is new shows the arm standing."""
        return stands(self._state, self._cell.watchdog.stop_after_s)

    def _lock(self, verdict: Verdict) -> None:
        _log.error("motion is locked: %s", self._latch)
        self._locking = self._places.latch_aside(verdict.rule, verdict.reason)
        self._tell_safety({"latch": [verdict.rule, verdict.reason]})

    def _listen(self, until: float) -> None:
        """Takes messages until it is time for the next tick."""
        ends = [end for end in (self._collector, self._safety) if end.fileno() >= 0]
        ready, _, _ = select.select(ends, [], [], max(0.0, until - time.monotonic()))
        if self._collector in ready:
            try:
                while (message := self._collector.receive(0.0)) is not None:
                    self._take(message)
            except ChannelClosed:
                self._leave("the collector is gone")
        if self._safety in ready:
            try:
                while (message := self._safety.receive(0.0)) is not None:
                    self._hear_safety(message)
            except ChannelClosed:
                self._safety.close()
                self._safety_gone = True
                if not self._watched:  # nothing has moved: no reason to lock
                    self._leave("the safety process ended before it watched")
        left_s = until - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)

    def _take(self, message: Message) -> None:
        do = message["do"]
        if do == "stop":
            self._arm.stop(self._cell.limits.stop_decel_m_s2)
        elif do == "hold":
            self._hold()
        elif do == "close":
            self._leave("closed")
        elif do == "facts":
            self._facts, self._facts_ns = CellFacts(**message["facts"]), time.monotonic_ns()
            return
        elif do == "finish_episode":
            with self._judging:
                self._monitor.finish_episode()
            self._tell_safety({"finish_episode": True})
        else:
            held = self._unheard.judge(do, self._monitor.phase)
            if held is None:
                self._worker.put(message)
            else:
                self._reply({"id": message["id"], **held})
            return
        if do in ("stop", "hold"):
            self._mark("asked", f"the collector asked to {do}")
        self._reply({"id": message["id"]})

    def _mark(self, rule: str, reason: str) -> None:
        ask, told = self._worker.current, Verdict(Reaction.STOP, rule, reason)
        if ask is not None:
            ask.told = ask.told or told
            if not is_at_least(ask.ended_by, Reaction.STOP):
                ask.ended_by = told

    def _hear_safety(self, message: Message) -> None:
        if message.get("watching"):
            self._watched = True
        if "latch" in message:
            rule, reason = message["latch"]
            self._latch = self._latch or f"{rule}: {reason}"
            self._mark(rule, reason)
            self._arm.stop(self._cell.limits.stop_decel_m_s2)

    def _leave(self, why: str) -> None:
        self._leaving = self._leaving or why

    def _end(self) -> int:
        """Stops, waits until the arm stands, and says that this end is no accident."""
        if self._leaving != "closed":
            _log.warning("ending: %s", self._leaving)
        deadline = time.monotonic() + _BRAKE_FOR_S
        while self._worker.connected.is_set() and time.monotonic() < deadline:
            self._arm.stop(self._cell.limits.stop_decel_m_s2)
            self._board.beat(Member.ARM)
            with contextlib.suppress(RobotError):
                self._state = self._arm.state()
                if self._worker.current is None and self._stands():
                    break
            time.sleep(0.05)
        self._tell_safety({"leaving": self._leaving})
        limit = threading.Timer(_CLOSE_S, os._exit, (_HUNG,))
        limit.daemon = True
        limit.start()
        self._worker.end(_BRAKE_FOR_S)
        if self._locking is not None:
            self._locking.join()
        return 0

    def _reply(self, message: Message) -> None:
        with contextlib.suppress(ChannelClosed):
            self._collector.send(message)

    def _tell_safety(self, message: Message) -> None:
        with contextlib.suppress(ChannelClosed):
            self._safety.send(message)


def main(settings: dict[str, Any]) -> int:
    """Runs the process; ``settings`` hold the cell file's path and the file descriptors passed on."""
    logging.basicConfig(level=logging.WARNING, format="arm: %(message)s")
    prefer()
    die_at_once()
    cell = parts.load(Path(settings["cell"]), settings["hash"])
    collector, safety = Channel.from_fd(settings["collector"]), Channel.from_fd(settings["peer"])
    with contextlib.suppress(ChannelClosed):  # it could not start; the collector hears of it from itself
        safety.send({"pid": os.getpid()})
    places = Places(cell)
    try:
        arm = parts.make_arm(cell)
        gripper = parts.make_gripper(cell, arm)
        monitor = parts.make_monitor(cell, places, frozenset({Heartbeat.COLLECTOR, Heartbeat.POLICY}))
    except Exception as error:  # a vendor's library that is missing or broken is told to the collector
        collector.send(failure(error))
        with contextlib.suppress(ChannelClosed):
            safety.send({"leaving": "failed"})
        return 7
    return ArmChild(cell, arm, gripper, monitor, Board(settings["board"]), collector, safety, places).run()


if __name__ == "__main__":
    code = main(json.loads(sys.argv[1]))
    sys.stderr.flush()
    # No teardown: a vendor's threads may hang in it, and everything was closed above.
    os._exit(code)
