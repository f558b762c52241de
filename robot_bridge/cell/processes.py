"""The collector's side of a cell's processes: starting them, showing them that it lives, asking, and ending them."""

import contextlib
import itertools
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from qtopt.errors import ConfigError, NotReady, RobotError
from robot_bridge.cell.channel import Channel, ChannelClosed, Message
from robot_bridge.cell.launch import end, lives, running_with, spawn
from robot_bridge.cell.places import Places, Running
from robot_bridge.cell.records import Report, unpack_report
from robot_bridge.cell.shared import Board, Member
from robot_bridge.cell_file import CellFile
from robot_bridge.contracts import Capability, Latch
from robot_bridge.safety.facts import CellFacts

_log = logging.getLogger(__name__)
_START_S: Final = 40.0
_BEAT_S: Final = 0.1
_END_S: Final = 8.0
_LAST_WORD_S: Final = 1.0
_ARM: Final = "robot_bridge.cell.arm_child"
_SAFETY: Final = "robot_bridge.cell.safety_child"
_REQUIRED: Final = (Capability.CARTESIAN_MOVE, Capability.GRIPPER_WIDTH)
"""What no cell can do without: an arm that goes where it is told, and fingers that say whether they hold something."""


class CellProcesses:
    """The arm's process and the safety process of a cell, running; nothing moves before ``ask`` wants it.

    Args:
        path: of the cell file.
        cell: what it says.
        places: where the cell keeps its state.
        facts: gives the newest word on camera and disk.

    Attributes:
        capabilities: of arm and gripper.
        arm: the arm's process.
        safety: the safety process.

    Raises:
        ConfigError: arm and gripper cannot do what every cell needs; no process is left behind.
        RobotError: a process could not connect, or did not come up in time, or a lock could not be written; the same.
        NotReady: a person has to do something about the arm before it can be moved; the same.
    """

    def __init__(
        self, path: Path, cell: CellFile, places: Places, facts: Callable[[], CellFacts] | None = None
    ) -> None:
        obstacle = places.latch_file.obstacle()
        if obstacle:
            raise RobotError(obstacle)
        self._places, self._facts = places, facts
        self._locked: Latch | None = None
        self._board = Board()
        self._numbers = itertools.count(1)
        self._asking = threading.Lock()
        self._sending = threading.Lock()
        self._closed, self._ready = threading.Event(), threading.Event()
        self.capabilities: frozenset[Capability] = frozenset()
        self._board.beat(Member.COLLECTOR)
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()
        self._start(path, cell)
        try:
            places.say_running(Running(os.getpid(), self.arm.pid, self.safety.pid, self._board.fd))
            self._await_ready()
            self._require_capabilities()
            self._ready.set()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, timeout_s: float, **what: Any) -> Message:
        """Asks the arm's process and waits for its answer.

        Raises:
            RobotError: it refused, is gone, or did not answer in time; the arm was then told to stop.
        """
        with self._asking:
            number = self._send(do, what)
            deadline = time.monotonic() + timeout_s
            while (left_s := deadline - time.monotonic()) > 0:
                answer = self._receive(left_s)
                if answer is not None and answer.get("id") == number:
                    if "error" in answer:
                        raise RobotError(str(answer["error"]))
                    return answer
        self.tell("stop")
        raise RobotError(f"the arm's process did not answer {do!r} within {timeout_s:.1f} s; it was told to stop")

    def tell(self, do: str, **what: Any) -> None:
        """Sends what needs no answer: ``stop``, ``hold``; goes on where nobody takes it."""
        try:
            self._send(do, what)
        except RobotError as error:
            _log.debug("%s was not taken: %s", do, error)

    def report(self) -> Report:
        """Returns the newest report of the arm's process; raises RobotError where that process is gone or silent."""
        record, silence_s = self._board.arm.newest(), self._board.silence_s(Member.ARM)
        if record is None or silence_s is None:
            raise RobotError("the arm's process has not reported yet")
        if self._closed.is_set() or self.arm.poll() is not None:
            raise RobotError(f"the arm's process has ended{self._why()}")
        if silence_s > 1.0:
            raise RobotError(f"the arm's process has been silent for {silence_s:.1f} s{self._why()}")
        return unpack_report(record)

    def last_report(self) -> Report | None:
        """Returns the newest report however old it is; None where there was none."""
        record = self._board.arm.newest()
        return None if record is None else unpack_report(record)

    def safety_report(self) -> Report | None:
        """Returns the newest report of the safety process; None before its first."""
        record = self._board.safety.newest()
        return None if record is None else unpack_report(record)

    @property
    def lock(self) -> Latch | None:
        """What a process says locks motion, written and acknowledged or not; a locked one has to be started anew."""
        return self._locked if self._closed.is_set() else told_lock(self._board)

    @property
    def alive(self) -> bool:
        """Whether both processes live."""
        return not self._closed.is_set() and self.arm.poll() is None and self.safety.poll() is None

    def close(self) -> None:
        """Has the arm stopped and both processes ended; a second call does nothing."""
        if self._closed.is_set():
            return
        for channel in (self._to_arm, self._to_safety):
            try:
                channel.send({"id": 0, "do": "close"})
            except ChannelClosed:
                continue
        end(self.arm, _END_S)
        end(self.safety, _END_S)
        self._locked = told_lock(self._board)  # may be said at the very end
        self._closed.set()
        self._heart.join()
        self._places.say_running(None)
        for part in (self._to_arm, self._to_safety, self._board):
            part.close()

    def _start(self, path: Path, cell: CellFile) -> None:
        self._to_arm, arm_end = Channel.pair()
        self._to_safety, safety_end = Channel.pair()
        arm_peer, safety_peer = socket.socketpair()
        settings = {"cell": str(path.resolve()), "hash": cell.config_hash, "board": self._board.fd}
        self.safety = _start(_SAFETY, settings, safety_end, safety_peer)
        self.arm = _start(_ARM, settings, arm_end, arm_peer)
        for each in (arm_end, safety_end, arm_peer, safety_peer):
            each.close()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        for name, channel, process in (("arm's", self._to_arm, self.arm), ("safety", self._to_safety, self.safety)):
            while True:
                try:
                    message = channel.receive(max(0.0, deadline - time.monotonic()))
                except ChannelClosed as error:
                    code = end(process, 1.0)
                    raise RobotError(
                        self._safety_failed() or f"the {name} process ended with code {code} before it was ready"
                    ) from error
                if message is None:
                    raise RobotError(f"the {name} process was not ready within {_START_S:.0f} s")
                if "failed" in message:
                    kind = NotReady if message.get("not_ready") else RobotError
                    raise kind(f"the {name} process: {message['failed']}")
                if message.get("ready"):
                    self.capabilities = frozenset(Capability(each) for each in message["capabilities"])
                    break
                if message.get("watching"):
                    break

    def _require_capabilities(self) -> None:
        missing = [flag.value for flag in _REQUIRED if flag not in self.capabilities]
        if missing:
            raise ConfigError(
                f"arm and gripper can do {', '.join(sorted(self.capabilities)) or 'nothing'}; missing: "
                f"{', '.join(missing)}, without which no grasp can be made and judged: use others in the cell file"
            )

    def _safety_failed(self) -> str:
        """Returns what the safety process could not do, if it said so: its end may take the arm's process along."""
        with contextlib.suppress(ChannelClosed):
            while (message := self._to_safety.receive(_LAST_WORD_S)) is not None:
                if "failed" in message:
                    return f"the safety process: {message['failed']}"
        return ""

    def _send(self, do: str, what: dict[str, Any]) -> int:
        with self._sending:
            number = next(self._numbers)
            try:
                self._to_arm.send({"id": number, "do": do, **what})
            except ChannelClosed as error:
                raise RobotError(f"the arm's process has ended{self._why()}") from error
        return number

    def _receive(self, timeout_s: float) -> Message | None:
        try:
            return self._to_arm.receive(timeout_s)
        except ChannelClosed as error:
            raise RobotError(f"the arm's process has ended{self._why()}") from error

    def _why(self) -> str:
        """Returns what a process said last that locked motion; both may say so before it is on the disk."""
        lock = self.lock
        return "" if lock is None else f"; motion is locked by {lock.rule}: {lock.reason}"

    def _beat(self) -> None:
        while True:
            self._board.beat(Member.COLLECTOR)
            if self._facts is not None and self._ready.is_set():
                self.tell("facts", facts=asdict(self._facts()))
            if self._closed.wait(_BEAT_S):
                return


def told_lock(board: Board) -> Latch | None:
    """Returns what the processes that share a board say locks motion, None where none does."""
    for record in (board.safety.newest(), board.arm.newest()):
        latch = "" if record is None else unpack_report(record).latch
        if latch:
            rule, _, reason = latch.partition(": ")
            return Latch(rule, reason, time.time())
    return None


def arms_of(path: Path) -> list[int]:
    """Returns the arm's processes that were started with a cell file, whatever is in it by now."""
    return running_with(_ARM, path)


def arm_lives(running: Running) -> bool:
    """Returns whether the arm's process of a cell that was noted as running has not ended."""
    return lives(running.arm, _ARM)


def _start(
    module: str, settings: dict[str, Any], collector: socket.socket, peer: socket.socket
) -> subprocess.Popen[bytes]:
    ends = {"collector": collector.fileno(), "peer": peer.fileno()}
    return spawn(module, {**settings, **ends}, (settings["board"], *ends.values()))
