"""The safety process's own way to a Universal Robots arm: RTDE to read, dashboard and a short program to stop.

Both ways to stop are closed as soon as somebody switches the pendant to local control, while a program that runs goes
on: so that is looked at all the time, and an arm in local control is reported as one in manual mode.
"""

import contextlib
import dataclasses
import socket
import threading
import time
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode, ArmState
from robot_bridge.drivers.dashboard import Dashboard
from robot_bridge.drivers.rtde import RtdeReader
from robot_bridge.drivers.ur_state import FIELDS, UrOptions, arm_state

_SCRIPT_PORT = 30002
_STOP_PROGRAM = b"def halt():\n  stopl(2.0)\nend\n"
_LOOK_S: Final = 0.5


class UrStopChannel:
    """A ``robot_bridge.contracts.StopChannel`` without any vendor's library.

    Args:
        options: the arm's.
    """

    def __init__(self, options: UrOptions) -> None:
        self._host = options.host
        self._reader = RtdeReader(options.host, FIELDS, options.frequency_hz)
        self._dashboard = Dashboard(options.host, timeout_s=0.5)
        self._closing = threading.Event()
        self._is_local = False

    def connect(self, deadline_s: float) -> None:
        """Connects; raises RobotError."""
        until = time.monotonic() + deadline_s
        try:
            self._dashboard.connect(deadline_s)
            self._reader.connect(max(0.1, until - time.monotonic()))
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._watch_control, name="ur-remote-control", daemon=True).start()

    def state(self) -> ArmState:
        """Returns the newest report at once; its age says whether the stream still flows. Raises RobotError.

        MANUAL in local control, where a running program can be stopped at the pendant only.
        """
        if self._reader.lost:
            raise RobotError(f"the connection to {self._host} is lost: {self._reader.lost}")
        state = arm_state(*self._reader.newest())
        if self._is_local and state.mode.can_move:
            return dataclasses.replace(state, mode=ArmMode.MANUAL, codes={**state.codes, "control": "local"})
        return state

    def stop(self) -> bool:
        """Stops the program from the dashboard, and where that fails puts a program that stops in its place.

        False in local control, where the controller takes neither.
        """
        return self._dashboard.stop() or (self._send_program() and not self._is_local)

    def close(self) -> None:
        """Frees the connection, without a stop."""
        self._closing.set()
        self._reader.close()
        self._dashboard.close()

    def _watch_control(self) -> None:
        """Notes who is in control: us where the controller knows no such thing (CB3), who it was where it is silent.

        Over a connection of its own each time: a stop waits for no other request, and after a switch a dashboard wants
        its clients to connect anew.
        """
        while not self._closing.is_set():
            with contextlib.closing(Dashboard(self._host, timeout_s=0.5)) as asked, contextlib.suppress(RobotError):
                self._is_local = asked.ask("is in remote control").lower() == "false"
            self._closing.wait(_LOOK_S)

    def _send_program(self) -> bool:
        try:
            with socket.create_connection((self._host, _SCRIPT_PORT), timeout=0.5) as connection:
                connection.sendall(_STOP_PROGRAM)
        except OSError:
            return False
        return True
