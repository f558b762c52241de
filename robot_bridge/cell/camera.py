"""The collector's side of a camera: the newest frame of the camera's process, started again where it failed."""

import contextlib
import logging
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qtopt.errors import RobotError, StaleFrame
from qtopt.types import JsonValue
from robot_bridge.cell.channel import Channel, ChannelClosed, Message
from robot_bridge.cell.launch import end, spawn
from robot_bridge.cell.pictures import PictureRing
from robot_bridge.cell_file import CellFile
from robot_bridge.contracts import Capability, Frame

_log = logging.getLogger(__name__)
_START_S: Final = 25.0
_END_S: Final = 3.0
_POLL_S: Final = 0.002
_SILENT_S: Final = 2.0
"""A camera's process that lives ends itself when its camera gives nothing for half as long."""

REOPENINGS_AN_HOUR: Final = 3


class ChildCamera:
    """Satisfies ``robot_bridge.contracts.Camera`` over a process of its own.

    Args:
        path: of the cell file.
        cell: what it says.
        name: of the camera there.
    """

    def __init__(self, path: Path, cell: CellFile, name: str) -> None:
        self._path, self._cell, self._name = path, cell, name
        self._process: subprocess.Popen[bytes] | None = None
        self._reopened: deque[float] = deque()
        self._ready: Message = {}
        self._ring: PictureRing | None = None
        self._changing = threading.Lock()  # the heartbeat's thread asks for the age
        self._started_ns = 0
        self.process_id = 0

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The flags that the camera has earned; known once it is started."""
        return frozenset(Capability(each) for each in self._ready.get("capabilities", ()))

    def start(self, deadline_s: float = _START_S) -> None:
        """Starts the process and waits for its first frame; raises RobotError."""
        self.stop()
        self._channel, theirs = Channel.pair()
        ours, handle = socket.socketpair()
        fds = {"collector": theirs.fileno(), "handle": handle.fileno()}
        settings = {"cell": str(self._path.resolve()), "hash": self._cell.config_hash, "camera": self._name, **fds}
        self._process = spawn("robot_bridge.cell.camera_child", settings, tuple(fds.values()))
        self.process_id = self._process.pid
        theirs.close()
        handle.close()
        with ours:
            try:
                message = self._channel.receive(deadline_s)
            except ChannelClosed:
                message = {"failed": "its process ended"}
            if message is None or "failed" in message:
                self._end()
                raise RobotError(
                    f"camera {self._name}: "
                    + (f"not ready within {deadline_s:.0f} s" if message is None else str(message["failed"]))
                )
            fd = socket.recv_fds(ours, 1, 1)[1][0]
        self._ready, self._started_ns = message, time.monotonic_ns()
        self._ring = PictureRing(message["bytes"], fd)

    def latest(self, max_age_s: float, not_before_ns: int = 0) -> Frame:
        """Returns the newest frame, waiting for one captured at ``not_before_ns`` or later, at most ``max_age_s`` long.

        A camera that has failed is opened again first, see ``revive``.

        Raises:
            StaleFrame: none that is new enough came; its message says what the camera's process said last.
        """
        self.revive()
        deadline = time.monotonic() + max_age_s
        while True:
            frame = None if self._ring is None else self._ring.newest()
            now_ns = time.monotonic_ns()
            if (
                frame is not None
                and frame.t_capture_ns >= not_before_ns
                and now_ns - frame.t_capture_ns <= max_age_s * 1e9
            ):
                return frame
            if time.monotonic() >= deadline:
                raise StaleFrame(
                    f"camera {self._name}: no picture that is new enough came within {max_age_s:.2f} s"
                    f"{self._last_words()}"
                )
            time.sleep(_POLL_S)

    def revive(self) -> None:
        """Opens the camera again where its process has ended, or gives nothing: then it is killed first.

        It is opened three times an hour at most, until a person has looked. An attempt that fails does not count:
        whoever asks gives up by themselves, and a camera that is plugged in again works at once.

        Raises:
            StaleFrame: it cannot be opened, or has failed too often.
        """
        process = self._process
        if process is not None and process.poll() is None:
            silence_s = self._silence_s()
            if silence_s <= _SILENT_S:
                return
            process.kill()
            self._reopen(f": its process gave nothing for {silence_s:.1f} s")
        else:
            self._reopen(self._last_words())

    def acknowledge(self) -> None:
        """A person has looked: how often the camera failed is counted anew."""
        self._reopened.clear()

    def age_s(self) -> float | None:
        """Returns how long ago the newest frame was captured [s]; None before the first."""
        with self._changing:
            frame = None if self._ring is None else self._ring.newest()
        return None if frame is None else (time.monotonic_ns() - frame.t_capture_ns) / 1e9

    def lock_settings(self) -> Mapping[str, JsonValue]:
        """Returns the settings that were fixed at the start; raises RobotError where the camera would not keep them."""
        settings = self._ready.get("settings")
        if not isinstance(settings, dict):
            raise RobotError(f"camera {self._name}: settings are not locked: {settings or 'it is not started'}")
        return settings

    def stop(self) -> None:
        """Ends the process; a second call does nothing."""
        with self._changing:
            ring, self._ring = self._ring, None
            if ring is not None:
                ring.close()
        if self._process is not None:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        with contextlib.suppress(ChannelClosed):
            self._channel.send({"do": "close"})
        self._channel.close()
        if process is not None:
            end(process, _END_S)

    def _silence_s(self) -> float:
        """Returns how long ago the process started or gave a frame [s]."""
        frame = None if self._ring is None else self._ring.newest()
        heard_ns = self._started_ns if frame is None else max(self._started_ns, frame.t_receive_ns)
        return (time.monotonic_ns() - heard_ns) / 1e9

    def _reopen(self, words: str) -> None:
        now = time.monotonic()
        while self._reopened and now - self._reopened[0] > 3600.0:
            self._reopened.popleft()
        if len(self._reopened) >= REOPENINGS_AN_HOUR:
            raise StaleFrame(
                f"camera {self._name} failed{words}; opened again {REOPENINGS_AN_HOUR} times in an hour: look at it"
            )
        _log.warning("camera %s failed%s; it is opened again", self._name, words)
        try:
            self.start()
        except RobotError as error:
            raise StaleFrame(str(error)) from error
        self._reopened.append(now)

    def _last_words(self) -> str:
        if self._process is None:
            return ""
        try:
            message = self._channel.receive(0.0)
        except ChannelClosed:
            return ": its process ended"
        return f": {message['failed']}" if message is not None and "failed" in message else ""
