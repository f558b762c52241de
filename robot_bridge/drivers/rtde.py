"""A reader of Universal Robots' real-time data exchange (RTDE, TCP 30004) in plain Python: it reads, and no more.

A frame is its own size (16 bits, big-endian, header included), a type, and a body. Only what a reader needs is here:
version, list of variables, start, data.
"""

import contextlib
import socket
import struct
import threading
import time

from qtopt.errors import RobotError

PORT = 30004
VERSION, MESSAGE, OUTPUTS, START, DATA = 86, 77, 79, 83, 85
_HEADER = struct.Struct(">HB")
_FORMATS = {"DOUBLE": "d", "VECTOR6D": "6d", "INT32": "i", "UINT32": "I", "UINT64": "Q", "VECTOR3D": "3d"}

Value = float | int | tuple[float, ...]


def frame(kind: int, body: bytes) -> bytes:
    """Returns a frame as it goes over the wire."""
    return _HEADER.pack(len(body) + _HEADER.size, kind) + body


def version_request() -> bytes:
    """Returns the request for version 2 of the protocol."""
    return frame(VERSION, struct.pack(">H", 2))


def outputs_request(frequency_hz: float, names: tuple[str, ...]) -> bytes:
    """Returns the request for variables at a frequency."""
    return frame(OUTPUTS, struct.pack(">d", frequency_hz) + ",".join(names).encode("ascii"))


class Frames:
    """Puts frames together from pieces of a stream, however they were cut."""

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Returns type and body of every frame that is complete. Raises RobotError where this is no RTDE stream."""
        self._waiting += data
        found = []
        while len(self._waiting) >= _HEADER.size:
            size, kind = _HEADER.unpack_from(self._waiting)
            if size < _HEADER.size:
                raise RobotError(f"a frame of size {size} came from the controller, expected at least {_HEADER.size}")
            if len(self._waiting) < size:
                break
            found.append((kind, self._waiting[_HEADER.size : size]))
            self._waiting = self._waiting[size:]
        return found


class Layout:
    """How the variables of a recipe lie in the body of a data frame.

    Args:
        names: as asked for.
        answer: the controller's answer: a recipe number and the types.

    Raises:
        RobotError: the controller does not have one of the variables.
    """

    def __init__(self, names: tuple[str, ...], answer: bytes) -> None:
        kinds = answer[1:].decode("ascii").split(",")
        if len(kinds) != len(names) or not set(kinds) <= set(_FORMATS):
            said = ", ".join(
                f"{name}: {kind}" for name, kind in zip(names, kinds, strict=False) if kind not in _FORMATS
            )
            raise RobotError(
                f"the controller answered {said or answer!r} to a request for {len(names)} variables, expected a type "
                "for each; it may be older than PolyScope 3.14 or 5.0: update it"
            )
        self.recipe = answer[0]
        self._names, self._counts = names, [int(_FORMATS[kind][:-1] or 1) for kind in kinds]
        self._struct = struct.Struct(">" + "".join(_FORMATS[kind] for kind in kinds))

    def unpack(self, body: bytes) -> dict[str, Value] | None:
        """Returns the variables in a data frame; None if it belongs to another recipe or has another size."""
        if len(body) != self._struct.size + 1 or body[0] != self.recipe:
            return None
        flat = self._struct.unpack_from(body, 1)
        values: dict[str, Value] = {}
        at = 0
        for name, count in zip(self._names, self._counts, strict=True):
            values[name] = flat[at] if count == 1 else flat[at : at + count]
            at += count
        return values


class RtdeReader:
    """A connection whose newest variables are always at hand; a thread of its own reads them.

    Args:
        host: the controller.
        names: the variables.
        frequency_hz: how often they should come.
    """

    def __init__(self, host: str, names: tuple[str, ...], frequency_hz: float) -> None:
        self._host, self._names, self._frequency_hz = host, names, frequency_hz
        self._socket: socket.socket | None = None
        self._layout: Layout | None = None
        self._newest: tuple[int, dict[str, Value]] | None = None
        self._first = threading.Event()
        self._closing = False
        self.lost = ""
        """Why the connection ended, if it did."""

    def connect(self, deadline_s: float) -> None:
        """Connects and waits for the first variables. Raises RobotError."""
        until = time.monotonic() + deadline_s
        try:
            connection = socket.create_connection((self._host, PORT), timeout=deadline_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = connection
            frames = Frames()
            if self._ask(frames, version_request(), VERSION, until) != b"\x01":
                raise RobotError(f"{self._host} refused version 2 of RTDE; its PolyScope is too old: update it")
            answer = self._ask(frames, outputs_request(self._frequency_hz, self._names), OUTPUTS, until)
            self._layout = Layout(self._names, answer)
            if self._ask(frames, frame(START, b""), START, until) != b"\x01":
                raise RobotError(f"{self._host} refused to start its data stream; restart the controller")
        except OSError as error:
            self.close()
            raise RobotError(
                f"no RTDE connection to {self._host}:{PORT}: {error}; check the address, that the controller is on, and "
                "that RTDE is enabled under Settings > Security > Services"
            ) from error
        except RobotError:
            self.close()
            raise
        connection.settimeout(None)
        threading.Thread(target=self._read, args=(connection, frames), name="rtde", daemon=True).start()
        if not self._first.wait(max(0.0, until - time.monotonic())):
            self.close()
            raise RobotError(f"{self._host} sent no data in {deadline_s:.1f} s though it accepted the stream")

    def newest(self) -> tuple[int, dict[str, Value]]:
        """Returns when the newest variables were received (monotonic ns), and them. Raises RobotError without."""
        if self._newest is None:
            raise RobotError(f"nothing came from {self._host} yet; connect first")
        return self._newest

    def close(self) -> None:
        """Frees the connection; a second call does nothing."""
        self._closing = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _ask(self, frames: Frames, request: bytes, kind: int, until: float) -> bytes:
        """Sends a request and returns the body of its answer; text messages and early data are passed over."""
        if self._socket is None:
            raise RobotError("no connection")
        self._socket.sendall(request)
        while True:
            self._socket.settimeout(max(0.01, until - time.monotonic()))
            data = self._socket.recv(4096)
            if not data:
                raise ConnectionError("the controller closed the connection")
            for found, body in frames.feed(data):
                if found == kind:
                    return body

    def _read(self, connection: socket.socket, frames: Frames) -> None:
        try:
            while data := connection.recv(1 << 16):
                self._take(frames.feed(data))
            self.lost = self.lost or "the controller closed the connection"
        except (OSError, RobotError) as error:
            self.lost = str(error)
        if self._closing:
            self.lost = "closed here"

    def _take(self, found: list[tuple[int, bytes]]) -> None:
        now_ns = time.monotonic_ns()
        for kind, body in found:
            values = self._layout.unpack(body) if kind == DATA and self._layout is not None else None
            if values is not None:
                self._newest = now_ns, values
                self._first.set()
