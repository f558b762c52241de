"""The stop channel of the remote-arm protocol: its own connections, no session, no way to move anything."""

import threading
import time
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmState
from robot_bridge.remote.endpoint import Endpoint, LinkOptions
from robot_bridge.remote.link import Link
from robot_bridge.remote.messages import BadMessage, read_state
from robot_bridge.remote.stop_link import StopLink

STOP_TIMEOUT_S: Final = 0.3


class HttpStopChannel:
    """Satisfies ``robot_bridge.contracts.StopChannel``: a thread reads, ``stop`` has connections of its own."""

    def __init__(self, options: LinkOptions) -> None:
        self._options = options
        endpoint = Endpoint(options)
        self._reports, self._stops = Link(endpoint), StopLink(endpoint)
        self._state: ArmState | None = None
        self._trouble = "connect() was not called"
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def connect(self, deadline_s: float) -> None:
        """Reads the first report, opens what a stop will need, and goes on reading; raises RobotError."""
        end_s = time.monotonic() + deadline_s
        try:
            self._read(deadline_s)
            if self._state is None:
                raise RobotError(self._trouble)
            self._stops.open(max(0.1, end_s - time.monotonic()))
        except RobotError:
            self.close()
            raise
        self._thread = threading.Thread(target=self._poll, name="http-stop", daemon=True)
        self._thread.start()

    def state(self) -> ArmState:
        """Returns the newest report; raises RobotError before the first."""
        state = self._state
        if state is None:
            raise RobotError(f"no report from {self._options.url}: {self._trouble}")
        return state

    def stop(self) -> bool:
        """Sends the stop; whether the server said it was carried out."""
        try:
            self._stops.post("/v1/stop", {}, STOP_TIMEOUT_S)
        except RobotError as error:
            self._trouble = str(error)
            return False
        return True

    def close(self) -> None:
        """Ends the thread and the connections; the arm goes on."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2.0)
        self._reports.close()
        self._stops.close()

    def _poll(self) -> None:
        while not self._closing.wait(1.0 / self._options.poll_hz):
            self._read(self._options.link_timeout_s)

    def _read(self, timeout_s: float) -> None:
        asked_ns = time.monotonic_ns()
        try:
            inner = self._reports.get("/v1/state", timeout_s).get("state")
            if not isinstance(inner, dict):
                raise BadMessage(f"state is {inner!r}, expected an object")
            self._state = read_state(inner, asked_ns)
        except RobotError as error:
            self._trouble = str(error)
