"""The safety process: it reads the arm over a connection of its own, and it can only stop.

It uses no vendor library and moves nothing. It stops the arm when its own monitor says so, when the arm's process dies
or falls silent, and when the collector is gone and the arm does not stand; then it locks motion until a person
acknowledges. A frozen arm's process is killed: waking up, it would go on where it was.
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
from robot_bridge.cell.channel import Channel, ChannelClosed, Message, failure
from robot_bridge.cell.last_way import LastWay
from robot_bridge.cell.launch import die_at_once, prefer
from robot_bridge.cell.places import Places
from robot_bridge.cell.records import Report, pack_report, stands, unpack_report
from robot_bridge.cell.shared import Board, Member
from robot_bridge.cell_file import CellFile
from robot_bridge.contracts import ArmMode, ArmState, Reaction, StopChannel, Verdict
from robot_bridge.drivers.no_stop import NoStopChannel
from robot_bridge.safety.facts import Phase
from robot_bridge.safety.monitor import CellSafetyMonitor
from robot_bridge.safety.rules import PRESSED

_log = logging.getLogger(__name__)
_TICK_S: Final = 0.01
_AGAIN_S: Final = 0.1
_ORPHAN_S: Final = 10.0
_GRACE_S: Final = 0.5
_ENDED: Final = "program_stopped"
_CONNECT_S: Final = 10.0


class SafetyChild:
    """The process's work.

    Args:
        cell: what the cell file says.
        line: connected; where it is none, the end of the arm's process takes its place.
        monitor: judges reports.
        board: shared with collector and arm's process.
        collector: channel to the collector.
        arm: channel to the arm's process.
        places: where the latch is kept.
    """

    def __init__(
        self,
        cell: CellFile,
        line: StopChannel,
        monitor: CellSafetyMonitor,
        board: Board,
        collector: Channel,
        arm: Channel,
        places: Places,
    ) -> None:
        self._cell, self._monitor, self._board, self._places = cell, monitor, board, places
        self._alone = isinstance(line, NoStopChannel)
        self._line = LastWay(board, self._kill_arm_process) if self._alone else line
        self._collector, self._arm = collector, arm
        self._state: ArmState | None = None
        self._latch = "" if monitor.latched is None else f"{monitor.latched.rule}: {monitor.latched.reason}"
        self._note = ""
        self._arm_process: int | None = None
        self._arm_ready = self._arm_left = self._arm_gone = self._collector_gone = self._told = self._ending = False
        self._stopping_since: float | None = None
        self._stopped_at = self._seconded_at = 0.0
        self._unstopped_since: float | None = None
        self._alone_since: float | None = None
        self._locking: threading.Thread | None = None

    def run(self) -> int:
        """Watches until the collector has ended and the arm stands; returns the exit code."""
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        due = time.monotonic()
        while True:
            due = max(due + _TICK_S, time.monotonic())
            self._listen(due)
            self._tick()
            if self._finished():
                self._line.close()
                if self._locking is not None:
                    self._locking.join()
                return 0

    def _end(self) -> None:
        self._ending = True

    def _tick(self) -> None:
        with contextlib.suppress(RobotError):
            self._state = self._knowing_whose_stop(self._line.state())
        # A dead process first: what the controller says of itself then is only its consequence.
        for verdict in (*self._judge_processes(), self._monitor.observe(self._state, time.monotonic_ns())):
            if not (self._arm_left and verdict.rule == _ENDED):  # the arm's process ends its program when it goes
                self._react(verdict)
        watching = self._state is not None
        if watching and not self._told:
            self._told = True
            for end in (self._arm, self._collector):
                _tell(end, {"watching": True})
        self._pursue()
        self._board.beat(Member.SAFETY)
        report = Report(arm=self._state, ready=watching, latch=self._latch, note=self._note)
        self._board.safety.write(pack_report(report))

    def _knowing_whose_stop(self, state: ArmState) -> ArmState:
        """Returns the report, a stop that the arm's process has sent itself told as held: only its driver knows."""
        if state.mode is not ArmMode.IDLE:
            return state
        record = self._board.arm.newest()
        told = None if record is None else unpack_report(record).arm
        held = told is not None and told.mode is ArmMode.HOLD
        return replace(state, mode=ArmMode.HOLD) if held else state

    def _judge_processes(self) -> list[Verdict]:
        verdicts = []
        if self._arm_gone and not self._arm_left:
            verdicts.append(Verdict(Reaction.LATCH, "arm_process", "the arm's process died"))
        elif self._arm_ready and not self._arm_left:
            silence_s, bound_s = self._board.silence_s(Member.ARM), self._cell.watchdog.arm_latch_s
            if silence_s is not None and silence_s > bound_s:
                words = f"the arm's process has been silent for {silence_s:.2f} s, expected at most {bound_s:.2f} s"
                verdicts.append(Verdict(Reaction.LATCH, "arm_process", words))
                self._kill_arm_process()
        if self._collector_gone and not self._stands():
            verdicts.append(Verdict(Reaction.STOP, "collector_gone", "the collector is gone and the arm still moves"))
        return verdicts

    def _react(self, verdict: Verdict) -> None:
        if verdict.reaction not in (Reaction.STOP, Reaction.LATCH):
            return
        self._note = f"{verdict.rule}: {verdict.reason}"
        if verdict.reaction is Reaction.LATCH and not self._latch:
            self._latch = self._note
            _log.error("motion is locked: %s", self._latch)
            self._stop_now()
            self._locking = self._places.latch_aside(verdict.rule, verdict.reason)
            _tell(self._arm, {"latch": [verdict.rule, verdict.reason]})
        elif verdict.reaction is Reaction.STOP and not self._latch and verdict.rule != PRESSED:
            # Out of a contact the arm's own process leads; from 60 N on this one stops the arm all the same.
            self._second(verdict)

    def _second(self, verdict: Verdict) -> None:
        """Stops an arm that its own process should have stopped by now; after that a person has to look."""
        now = time.monotonic()
        if self._stands():
            self._unstopped_since = None
        elif self._unstopped_since is None or now - self._seconded_at > _GRACE_S:
            self._unstopped_since = now
        elif now - self._unstopped_since > _GRACE_S:
            self._react(Verdict(Reaction.LATCH, verdict.rule, f"{verdict.reason}; the arm's process did not stop it"))
        self._seconded_at = now

    def _stop_now(self) -> None:
        self._stopped_at = time.monotonic()
        if self._stopping_since is None:
            self._stopping_since = self._stopped_at
        self._line.stop()

    def _pursue(self) -> None:
        """Stops again until the arm is seen to stand, however long; a person who moves it later is left alone."""
        if self._stopping_since is None:
            return
        now = time.monotonic()
        if self._stands() and now - self._stopping_since > 2 * _AGAIN_S:
            self._stopping_since = None
        elif now - self._stopped_at >= _AGAIN_S:
            self._stop_now()

    def _stands(self) -> bool:
        """Returns whether a new report shows the arm standing; without a second way, or its process has ended."""
        if self._alone and self._arm_gone:
            return True
        return stands(self._state, self._cell.watchdog.stop_after_s)

    def _listen(self, until: float) -> None:
        ends = [end for end in (self._collector, self._arm) if end.fileno() >= 0]
        if not ends:
            time.sleep(max(0.0, until - time.monotonic()))
            return
        ready, _, _ = select.select(ends, [], [], max(0.0, until - time.monotonic()))
        if self._arm in ready:
            self._arm_gone = not self._drain(self._arm, self._hear_arm)
        if self._collector in ready:
            self._collector_gone = not self._drain(self._collector, self._hear_collector)
        left_s = until - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)

    def _drain(self, end: Channel, hear: Any) -> bool:
        try:
            while (message := end.receive(0.0)) is not None:
                hear(message)
        except ChannelClosed:
            end.close()
            return False
        return True

    def _hear_arm(self, message: Message) -> None:
        if "pid" in message:
            with contextlib.suppress(ProcessLookupError):  # dead already, as its channel will say
                self._arm_process = os.pidfd_open(message["pid"])
        self._arm_ready = self._arm_ready or bool(message.get("ready"))
        self._arm_left = self._arm_left or "leaving" in message
        if "phase" in message:
            self._monitor.enter(Phase(message["phase"]), time.monotonic_ns())
        if "finish_episode" in message:
            self._monitor.finish_episode()
        if "latch" in message:
            self._react(Verdict(Reaction.LATCH, *message["latch"]))

    def _hear_collector(self, message: Message) -> None:
        if message["do"] == "close":
            self._ending = True

    def _kill_arm_process(self) -> None:
        if self._arm_process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._arm_process, signal.SIGKILL)

    def _finished(self) -> bool:
        """Returns whether nobody is left to watch and the arm stands, or that was not seen for ten seconds."""
        frozen_s = 2 * self._cell.watchdog.collector_stop_s
        silence_s = self._board.silence_s(Member.COLLECTOR)
        dismissed = self._collector_gone or self._ending or (silence_s is not None and silence_s > frozen_s)
        if not (dismissed and (self._arm_gone or self._arm_left)):
            self._alone_since = None
            return False
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
            if self._arm_ready and not self._alone and not self._stands():
                self._stop_now()  # whoever moved it has left before it was seen to stand
        return self._stopping_since is None or now - self._alone_since > _ORPHAN_S


def _tell(end: Channel, message: Message) -> None:
    if end.fileno() >= 0:
        with contextlib.suppress(ChannelClosed):
            end.send(message)


def main(settings: dict[str, Any]) -> int:
    """Runs the process; ``settings`` hold the cell file's path and the file descriptors passed on."""
    logging.basicConfig(level=logging.WARNING, format="safety: %(message)s")
    prefer()
    die_at_once()
    cell = parts.load(Path(settings["cell"]), settings["hash"])
    collector, arm = Channel.from_fd(settings["collector"]), Channel.from_fd(settings["peer"])
    places = Places(cell)
    try:
        line = parts.make_stop_channel(cell)
        line.connect(_CONNECT_S)
        monitor = parts.make_monitor(cell, places, frozenset())
    except Exception as error:
        collector.send(failure(error))
        return 7
    return SafetyChild(cell, line, monitor, Board(settings["board"]), collector, arm, places).run()


if __name__ == "__main__":
    code = main(json.loads(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)
