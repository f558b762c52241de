"""The way of stops to a remote-arm server: connections that are open before they are needed."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.remote.endpoint import LEAST_S, Endpoint
from robot_bridge.remote.link import Link
from robot_bridge.remote.messages import Json

CONNECTIONS: Final = 2
"""A stop finds one free while a hold, which may last as long as braking does, or a sign of life is on the other."""
KEEP_S: Final = 2.0
"""How often each connection is used at least [s]: many servers drop one that was idle for 5 s."""
KEEP_TIMEOUT_S: Final = 1.0
CHEAP: Final = "/v1/capabilities"


class StopLink:
    """Open connections that are taken in turn; one that broke is opened anew, also while there is nothing to stop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._where = endpoint.where
        self._links = [Link(endpoint) for _ in range(CONNECTIONS)]
        self._free: queue.Queue[Link] = queue.Queue()
        for link in self._links:
            self._free.put(link)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, deadline_s: float) -> None:
        """Opens all connections within ``deadline_s`` [s] and keeps them open.

        Raises:
            Refused: with the server's words.
            RobotError: it does not answer.
        """
        end_s = time.monotonic() + deadline_s
        for link in self._links:
            link.get(CHEAP, max(LEAST_S, end_s - time.monotonic()))
        self._thread = threading.Thread(target=self._keep, name="http-stop-link", daemon=True)
        self._thread.start()

    def post(self, path: str, message: Json, timeout_s: float) -> Json:
        """Sends ``message`` over a connection that is free; raises like ``open``, within ``timeout_s`` [s]."""
        end_s = time.monotonic() + timeout_s
        with self._taken(timeout_s) as link:
            return link.post(path, message, max(LEAST_S, end_s - time.monotonic()))

    def close(self) -> None:
        """Closes the connections; a stop after it would open one anew."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2 * KEEP_TIMEOUT_S)
        for link in self._links:
            link.close()

    @contextlib.contextmanager
    def _taken(self, timeout_s: float) -> Iterator[Link]:
        try:
            link = self._free.get(timeout=timeout_s)
        except queue.Empty:
            raise RobotError(f"{self._where} did not answer earlier requests within {timeout_s:g} s") from None
        try:
            yield link
        finally:
            self._free.put(link)

    def _keep(self) -> None:
        while not self._closing.wait(KEEP_S / CONNECTIONS):
            with contextlib.suppress(RobotError), self._taken(KEEP_TIMEOUT_S) as link:  # a stop will say what is wrong
                link.get(CHEAP, KEEP_TIMEOUT_S)
