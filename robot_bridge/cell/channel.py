"""Messages between the processes of a cell: JSON objects, each behind its length, over a pair of sockets.

The end of a channel is news, too: it tells, at once and however it came about, that the other process is gone.
"""

import json
import select
import socket
import struct
import threading
import time
from typing import Any, Final

from qtopt.errors import NotReady, RobotError

Message = dict[str, Any]

_LENGTH: Final = struct.Struct("<I")
_LARGEST: Final = 1 << 20
_SEND_S: Final = 2.0


class ChannelClosed(RobotError):
    """The process at the other end is gone, or reads no longer."""


def failure(error: Exception) -> Message:
    """Returns the message by which a process says why it cannot begin, and whether a person could change that."""
    return {"failed": str(error) or type(error).__name__, "not_ready": isinstance(error, NotReady)}


class Channel:
    """One end; any thread may send, one receives.

    Args:
        end: a connected stream socket, from then on the channel's.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.settimeout(_SEND_S)
        self._buffer = bytearray()
        self._sending = threading.Lock()

    @classmethod
    def from_fd(cls, fd: int) -> "Channel":
        """Returns the end that another process passed on as ``fd``."""
        return cls(socket.socket(fileno=fd))

    @staticmethod
    def pair() -> tuple["Channel", socket.socket]:
        """Returns an end to keep and a bare one to pass on and then to close here."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return Channel(ours), theirs

    def fileno(self) -> int:
        """Returns the socket's descriptor, for ``select``; -1 once closed."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Sends a message; raises ChannelClosed where nobody takes it."""
        content = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
        try:
            with self._sending:
                self._socket.sendall(_LENGTH.pack(len(content)) + content)
        except OSError as error:
            raise ChannelClosed(f"nobody takes messages any more: {error}") from error

    def receive(self, timeout_s: float) -> Message | None:
        """Returns the next message, None where none came in time; raises ChannelClosed at the channel's end."""
        deadline = time.monotonic() + timeout_s
        while (message := self._take()) is None:
            left_s = max(0.0, deadline - time.monotonic())
            if self.fileno() < 0:
                raise ChannelClosed("the channel was closed here")
            if not select.select([self._socket], [], [], left_s)[0]:
                return None
            try:
                piece = self._socket.recv(1 << 16)
            except OSError as error:
                raise ChannelClosed(f"the other process is gone: {error}") from error
            if not piece:
                raise ChannelClosed("the other process is gone")
            self._buffer += piece
        return message

    def close(self) -> None:
        """Ends the channel; a second call does nothing."""
        self._socket.close()

    def _take(self) -> Message | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > _LARGEST:
            raise ChannelClosed(f"a message of {length} bytes was announced, expected at most {_LARGEST}")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        content = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        message: Message = json.loads(content)
        return message
