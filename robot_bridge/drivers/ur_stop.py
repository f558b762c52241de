"""The safety process's own way to a Universal Robots arm: RTDE to read, dashboard and a short program to stop."""

import socket
import time

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmState
from robot_bridge.drivers.dashboard import Dashboard
from robot_bridge.drivers.rtde import RtdeReader
from robot_bridge.drivers.ur_state import FIELDS, UrOptions, arm_state

_SCRIPT_PORT = 30002
_STOP_PROGRAM = b"def halt():\n  stopl(2.0)\nend\n"


class UrStopChannel:
    """A ``robot_bridge.contracts.StopChannel`` without any vendor's library.

    Args:
        options: the arm's.
    """

    def __init__(self, options: UrOptions) -> None:
        self._host = options.host
        self._reader = RtdeReader(options.host, FIELDS, options.frequency_hz)
        self._dashboard = Dashboard(options.host, timeout_s=0.5)

    def connect(self, deadline_s: float) -> None:
        """Connects; raises RobotError."""
        until = time.monotonic() + deadline_s
        self._dashboard.connect(deadline_s)
        self._reader.connect(max(0.1, until - time.monotonic()))

    def state(self) -> ArmState:
        """Returns the newest report at once; its age says whether the stream still flows. Raises RobotError."""
        if self._reader.lost:
            raise RobotError(f"the connection to {self._host} is lost: {self._reader.lost}")
        return arm_state(*self._reader.newest())

    def stop(self) -> bool:
        """Stops the program from the dashboard, and where that fails puts a program that stops in its place."""
        return self._dashboard.stop() or self._send_program()

    def close(self) -> None:
        """Frees the connection, without a stop."""
        self._reader.close()
        self._dashboard.close()

    def _send_program(self) -> bool:
        try:
            with socket.create_connection((self._host, _SCRIPT_PORT), timeout=0.5) as connection:
                connection.sendall(_STOP_PROGRAM)
        except OSError:
            return False
        return True
