"""A second way to a UFACTORY arm, without the vendor's library: it reads at 100 Hz and it stops.

The reports of port 30003 carry no clock. A working arm's torques never repeat to the last bit, so a report that differs
from the one before is new, and each new one is a hundredth of a second of the controller's time. A report that comes
again and again unchanged proves nothing and lets no time pass.
"""

import contextlib
import dataclasses
import socket
import struct
import threading
import time
from collections import deque
from typing import Final

import numpy as np

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode, ArmState, Pose
from robot_bridge.drivers.xarm_options import XArmOptions
from robot_bridge.drivers.xarm_wire import (
    GET_ERROR,
    GET_VERSION,
    INVALID_BIT,
    REPORT_PERIOD_S,
    REPORT_PORT,
    SET_COLLISION_SENSITIVITY,
    SET_STATE,
    STOP,
    ControlLink,
    Report,
    Reports,
    error_words,
    parse_report,
)

Six = tuple[float, float, float, float, float, float]
TEACHING: Final = 2
_WINDOW: Final = 8
_ERROR_POLL_S: Final = 0.1
_ANEW_S: Final = 0.3
_ASKING_S: Final = 0.15
"""So long an arm that has just been stopped counts as held: by then its error is known, and so is whose stop it was."""
_PROTECTIVE = frozenset({22, 23, 24, 30, 31, 35, 37, 38, 53, 60})


def mode_of(state: int, mode: int, error: int) -> ArmMode:
    """Returns the arm's mode from the controller's state, mode and error numbers."""
    if error in (1, 2, 3):
        return ArmMode.EMERGENCY_STOP
    if error:
        return ArmMode.PROTECTIVE_STOP if error in _PROTECTIVE else ArmMode.FAULT
    if mode == TEACHING:
        return ArmMode.MANUAL
    if state == 1:
        return ArmMode.MOVING
    if state in (0, 2):
        return ArmMode.READY
    return ArmMode.SAFEGUARD_STOP if state == 3 else ArmMode.IDLE


def _taken(link: ControlLink) -> bool:
    status, _ = link.request(SET_STATE, bytes([STOP]))
    return not status & INVALID_BIT


class XArmStopChannel:
    """Satisfies ``robot_bridge.contracts.StopChannel``; the arm's driver reads through one of its own, too."""

    def __init__(self, options: XArmOptions) -> None:
        self._options = options
        self._link = ControlLink(options.host, options.control_port)
        self._reports: socket.socket | None = None
        self._news = threading.Condition()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._last_frame = b""
        self._ticks = 0
        self._error = 0
        self._went_until_s: float | None = None
        self._lost = ""
        self._latest: ArmState | None = None
        self._history: deque[tuple[int, float, Pose]] = deque(maxlen=_WINDOW)

    def connect(self, deadline_s: float) -> None:
        """Connects both ports and waits for a report; raises RobotError."""
        until_s = time.monotonic() + deadline_s
        self._link.connect(deadline_s)
        try:
            self._link.request(GET_VERSION, timeout_s=max(0.1, until_s - time.monotonic()))
            self._error = self._ask_error(max(0.1, until_s - time.monotonic()))
            self._open_reports(until_s)
        except BaseException:
            self.close()
            raise

    def state(self) -> ArmState:
        """Returns the newest report at once, OFFLINE once the connection is gone. RobotError if there was none."""
        latest = self._latest
        if latest is None:
            raise RobotError(f"no report of the xArm controller yet{': ' + self._lost if self._lost else ''}")
        return dataclasses.replace(latest, mode=ArmMode.OFFLINE) if self._lost else latest

    def wait(self, after_s: float, timeout_s: float) -> ArmState:
        """Waits until the controller's clock has passed ``after_s`` or the time is up; returns the newest report."""
        with self._news:
            self._news.wait_for(lambda: self._lost or self._ticks * REPORT_PERIOD_S > after_s, timeout_s)
        return self.state()

    def error(self) -> int:
        """Asks the controller for its error number now; the last known one if it does not answer."""
        with contextlib.suppress(RobotError):
            self._note_error(self._ask_error(0.3))
        return self._error

    def answers(self) -> bool:
        """Returns whether the controller answers at all, within a third of a second. Never raises."""
        try:
            self._link.request(GET_VERSION)
        except RobotError:
            return False
        return True

    def stop(self) -> bool:
        """Sends the stop, over a new connection where the old one broke; returns whether it was taken. Never raises."""
        try:
            return _taken(self._link)
        except RobotError as error:
            if isinstance(error.__cause__, TimeoutError):
                return False
        anew = ControlLink(self._options.host, self._options.control_port)
        try:
            anew.connect(_ANEW_S)
            return _taken(anew)
        except RobotError:
            return False
        finally:
            anew.close()

    def set_state(self, state: int) -> bool:
        """Asks for a state that moves nothing; returns whether the controller took it. Never raises."""
        try:
            status, _ = self._link.request(SET_STATE, bytes([state]))
        except RobotError:
            return False
        return not status & INVALID_BIT

    def set_collision_sensitivity(self, value: int) -> None:
        """Sets it without touching the arm's state, as the vendor's library would. Raises RobotError."""
        status, _ = self._link.request(SET_COLLISION_SENSITIVITY, bytes([value]))
        if status & INVALID_BIT:
            raise RobotError(f"the xArm controller refused collision sensitivity {value}")

    def close(self) -> None:
        """Frees both connections, without a stop; a second call does nothing."""
        self._closing.set()
        self._link.close()
        if self._reports is not None:
            with contextlib.suppress(OSError):
                self._reports.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(2.0)
        if self._reports is not None:
            self._reports.close()

    def _open_reports(self, until_s: float) -> None:
        try:
            left_s = max(0.1, until_s - time.monotonic())
            self._reports = socket.create_connection((self._options.host, REPORT_PORT), left_s)
        except OSError as error:
            raise RobotError(f"no reports from {self._options.host} port {REPORT_PORT}: {error}") from error
        self._reports.settimeout(0.2)
        for work in (self._read, self._watch_errors):
            thread = threading.Thread(target=work, name=f"xarm{work.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()
        with self._news:
            if not self._news.wait_for(lambda: self._latest is not None, max(0.1, until_s - time.monotonic())):
                raise RobotError(
                    f"port {REPORT_PORT} of {self._options.host} is open but silent: restart the controller"
                )

    def _read(self) -> None:
        stream = self._reports
        assert stream is not None
        splitter = Reports()
        try:
            while not self._closing.is_set():
                try:
                    data = stream.recv(8192)
                except TimeoutError:
                    continue
                if not data:
                    raise RobotError("the controller closed the report connection")
                for frame in splitter.feed(data):
                    self._take(frame)
        except (OSError, RobotError) as error:
            with self._news:
                self._lost = str(error) or type(error).__name__
                self._news.notify_all()

    def _take(self, frame: bytes) -> None:
        if frame == self._last_frame:
            return
        self._last_frame = frame
        now_ns = time.monotonic_ns()
        report = parse_report(frame)
        with self._news:
            self._ticks += 1
            clock_s = self._ticks * REPORT_PERIOD_S
            self._history.append((now_ns, clock_s, report.pose))
            if report.state < STOP:
                self._error, self._went_until_s = 0, clock_s
            self._latest = self._state_of(report, now_ns, clock_s)
            self._news.notify_all()

    def _state_of(self, report: Report, now_ns: int, clock_s: float) -> ArmState:
        mode = mode_of(report.state, report.mode, self._error)
        if mode is ArmMode.IDLE and self._went_until_s is not None and clock_s - self._went_until_s < _ASKING_S:
            mode = ArmMode.HOLD
        codes: dict[str, int | str] = {
            "state": report.state, "mode": report.mode, "waiting": report.waiting, "error": self._error,
        }  # fmt: skip
        if self._error:
            codes["error_text"] = error_words(self._error)
        return ArmState(
            t_host_ns=now_ns,
            t_controller_s=clock_s,
            pose=report.pose,
            twist=self._twist(),
            wrench=None,
            joints_rad=report.joints_rad,
            mode=mode,
            codes=codes,
        )

    def _twist(self) -> Six:
        """Returns the velocity over the last reports; the longer of both clocks' spans, as frames arrive in bursts."""
        if len(self._history) < 2:
            return (0.0,) * 6
        (first_ns, first_s, first), (last_ns, last_s, last) = self._history[0], self._history[-1]
        span_s = max((last_ns - first_ns) * 1e-9, last_s - first_s)
        step = (np.array(last.position_m) - np.array(first.position_m)) / span_s
        turn = rotation_between(first, last) / span_s
        x, y, z = step.tolist()
        a, b, c = turn.tolist()
        return x, y, z, a, b, c

    def _watch_errors(self) -> None:
        """Reports at 100 Hz have no error number: asks for it while the arm is stopped."""
        while not self._closing.wait(_ERROR_POLL_S):
            latest = self._latest
            if latest is not None and int(latest.codes["state"]) >= STOP:
                with contextlib.suppress(RobotError):
                    self._note_error(self._ask_error(0.3))

    def _note_error(self, error: int) -> None:
        with self._news:
            latest = self._latest
            self._error = error
            if latest is None or latest.codes["error"] == error:
                return
            codes = {**latest.codes, "error": error, "error_text": error_words(error) if error else ""}
            mode = mode_of(int(latest.codes["state"]), int(latest.codes["mode"]), error)
            self._latest = dataclasses.replace(latest, codes=codes, mode=mode)

    def _ask_error(self, timeout_s: float) -> int:
        _, data = self._link.request(GET_ERROR, timeout_s=timeout_s)
        if len(data) < 2:
            raise RobotError(f"the xArm controller's error reply has {len(data)} bytes, expected 2")
        error, _ = struct.unpack_from(">BB", data)
        return int(error)


def rotation_between(first: Pose, second: Pose) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Returns the rotation vector [rad], (3,), base frame, that turns one orientation into another."""
    ax, ay, az, aw = first.quaternion_xyzw
    bx, by, bz, bw = second.quaternion_xyzw
    w = bw * aw + bx * ax + by * ay + bz * az
    vector = np.array(
        [
            -bw * ax + bx * aw - by * az + bz * ay,
            -bw * ay + by * aw - bz * ax + bx * az,
            -bw * az + bz * aw - bx * ay + by * ax,
        ]
    )
    if w < 0:
        w, vector = -w, -vector
    size = float(np.linalg.norm(vector))
    return vector * (2.0 * float(np.arctan2(size, w)) / size) if size > 1e-12 else 2.0 * vector
