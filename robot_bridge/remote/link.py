"""One kept-alive HTTP connection to a remote-arm server: every call has a deadline and an answer that was checked."""

import http.client
import select
import threading
import time
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.remote.endpoint import LEAST_S, Endpoint
from robot_bridge.remote.messages import Json, dump, parse

REPLY_LIMIT_BYTES: Final = 65_536


class Refused(RobotError):
    """The server answered, and said no; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Link:
    """A connection for one caller at a time; it is opened anew after a failure, and nothing is ever sent twice."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str, timeout_s: float) -> Json:
        """Asks for ``path``; raises Refused with the server's words, RobotError where it does not answer."""
        return self._ask("GET", path, None, timeout_s)

    def post(self, path: str, message: Json, timeout_s: float) -> Json:
        """Sends a command; raises Refused with the server's words, RobotError where it does not answer."""
        return self._ask("POST", path, dump(message), timeout_s)

    def close(self) -> None:
        """Closes the connection; the next call would open it anew."""
        with self._lock:
            self._drop()

    def _ask(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Json:
        end_s, where = time.monotonic() + timeout_s, self._endpoint.where
        if not self._lock.acquire(timeout=timeout_s):
            raise RobotError(f"{where} did not answer an earlier request within {round(timeout_s, 2):g} s")
        try:
            status, reply = self._exchange(method, path, body, end_s)
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise RobotError(
                f"{method} {path}: no answer from the arm's server at {where} within {round(timeout_s, 2):g} s "
                f"({type(error).__name__}: {error}); is it running, and is the address right?"
            ) from error
        finally:
            self._lock.release()
        answer = parse(reply)
        if status != 200:
            raise Refused(
                f"{where} refused {method} {path} ({status}): {answer.get('error', 'no reason given')}", status
            )
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None, end_s: float) -> tuple[int, bytes]:
        if self._connection is not None and _ended(self._connection):
            self._drop()
        if self._connection is None:
            self._connection = self._endpoint.connect(_left_s(end_s))
        connection = self._connection
        connection.sock.settimeout(_left_s(end_s))
        connection.request(method, path, body, self._endpoint.headers)
        connection.sock.settimeout(_left_s(end_s))
        response = connection.getresponse()
        reply = response.read(REPLY_LIMIT_BYTES)
        if response.will_close or not response.isclosed():
            self._drop()
        return response.status, reply

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _left_s(end_s: float) -> float:
    return max(LEAST_S, end_s - time.monotonic())


def _ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has hung up, or speaks unasked: before a request is sent it has nothing to say."""
    return connection.sock is None or bool(select.select([connection.sock], [], [], 0)[0])
