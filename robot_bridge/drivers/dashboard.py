"""The dashboard of a Universal Robots controller (TCP 29999): a line asked, a line answered."""

import contextlib
import socket
import threading
import time

from qtopt.errors import RobotError

PORT = 29999


class Dashboard:
    """A connection to a dashboard, opened anew where it broke; calls may come from any thread.

    Args:
        host: the controller.
        timeout_s: of each answer, unless it is asked for within another.
    """

    def __init__(self, host: str, timeout_s: float = 1.0) -> None:
        self._host, self._timeout_s = host, timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._waiting = b""

    def connect(self, deadline_s: float) -> None:
        """Connects and waits for the greeting. Raises RobotError."""
        with self._lock:
            self._open(deadline_s)

    def ask(self, request: str, timeout_s: float | None = None) -> str:
        """Returns the answer to a request. Raises RobotError where none came in time."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        if not self._lock.acquire(timeout=timeout_s):
            raise RobotError(f"the dashboard of {self._host} is busy with another request")
        try:
            if self._socket is None:
                self._open(timeout_s)
            try:
                return self._exchange(request, timeout_s)
            except TimeoutError:
                raise
            except OSError:
                self._open(timeout_s)
                return self._exchange(request, timeout_s)
        except OSError as error:
            self._drop()
            raise RobotError(f"no answer from the dashboard of {self._host} to {request!r}: {error}") from error
        finally:
            self._lock.release()

    def stop(self) -> bool:
        """Stops the program and with it the arm; returns whether nothing moves by a program any more. Never raises."""
        try:
            answer = self.ask("stop")
        except RobotError:
            return False
        # Without a program there is nothing to stop, and the dashboard calls that a failure.
        return answer.startswith(("Stopped", "Failed to execute: stop"))

    def close(self) -> None:
        """Frees the connection; a second call does nothing."""
        with self._lock:
            self._drop()

    def _open(self, deadline_s: float) -> None:
        self._drop()
        until = time.monotonic() + deadline_s
        try:
            self._socket = socket.create_connection((self._host, PORT), timeout=deadline_s)
            greeting = self._line(until)
        except OSError as error:
            self._drop()
            raise RobotError(
                f"no connection to the dashboard {self._host}:{PORT}: {error}; check the address, that the controller "
                "is on, and that the dashboard server is enabled under Settings > Security > Services"
            ) from error
        if "Dashboard Server" not in greeting:
            self._drop()
            raise RobotError(f"{self._host}:{PORT} greets with {greeting!r}, expected a dashboard server")

    def _exchange(self, request: str, timeout_s: float) -> str:
        if self._socket is None:
            raise ConnectionError("no connection")
        until = time.monotonic() + timeout_s
        self._socket.settimeout(timeout_s)
        self._socket.sendall(request.encode("ascii") + b"\n")
        return self._line(until)

    def _line(self, until: float) -> str:
        while b"\n" not in self._waiting:
            left_s = until - time.monotonic()
            if self._socket is None or left_s <= 0.0:
                raise TimeoutError("no line came in time")
            self._socket.settimeout(left_s)
            data = self._socket.recv(4096)
            if not data:
                raise ConnectionError("the dashboard closed the connection")
            self._waiting += data
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line.decode("ascii", "replace").strip()

    def _drop(self) -> None:
        self._waiting = b""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None
