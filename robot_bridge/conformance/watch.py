"""Watching an arm from the outside while it moves: samples of its own reports, and a motion in a thread of its own."""

import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from qtopt.errors import RobotError
from robot_bridge.contracts import Arm, ArmState, MotionResult, Pose


class Watch:
    """Collects an arm's reports while it is entered."""

    def __init__(self, arm: Arm, period_s: float = 0.004) -> None:
        self._arm, self._period_s = arm, period_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.states: list[ArmState] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._period_s):
            try:
                state = self._arm.state()
            except RobotError:
                continue
            if not self.states or state.t_controller_s != self.states[-1].t_controller_s:
                self.states.append(state)

    def top_speed_m_s(self) -> float:
        """Returns the largest speed reported."""
        return max(speed_m_s(state) for state in self.states)

    def stray_m(self, start: Pose, end: Pose) -> float:
        """Returns the largest distance of the tool from the line between two poses."""
        return max(_to_line(state.pose.position_m, start.position_m, end.position_m) for state in self.states)


class Motion:
    """A call that moves, in a thread of its own, as the contract allows it to be stopped from another."""

    def __init__(self, call: Callable[[], MotionResult]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._result: MotionResult | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # handed to the test's own thread
            self._error = error

    def result(self, timeout_s: float) -> MotionResult:
        """Waits for the end of the motion and returns how it ended."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"the motion has not returned within {timeout_s} s"
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


def distance_m(first: Pose, second: Pose) -> float:
    """Returns the distance between two tool points."""
    return math.dist(first.position_m, second.position_m)


def is_old(arm: Arm, age_s: float) -> bool:
    """Returns whether the newest report is older [s], or the driver says that there is none."""
    try:
        return (time.monotonic_ns() - arm.state().t_host_ns) * 1e-9 > age_s
    except RobotError:
        return True


def is_ready(arm: Arm) -> bool:
    """Returns whether the controller would move the arm."""
    state = arm.state()
    return state.mode.can_move and state.program_running


def recovers(arm: Arm) -> bool:
    """Asks the arm to recover; returns whether it did."""
    try:
        arm.recover()
    except RobotError:
        return False
    return True


def speed_m_s(state: ArmState) -> float:
    """Returns the speed of the tool point."""
    return math.hypot(*state.twist[:3])


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Waits for a condition; fails the test where it does not come."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"within {timeout_s} s not seen: {what}"
        time.sleep(0.002)


def wait_standing(arm: Arm, timeout_s: float) -> None:
    """Waits until the tool has kept its place for 0.15 s: one that swings is slow, too, wherever it turns."""
    place, since_s = arm.state().pose, time.monotonic()

    def stands() -> bool:
        nonlocal place, since_s
        here = arm.state().pose
        if distance_m(here, place) > 5e-4:
            place, since_s = here, time.monotonic()
        return time.monotonic() - since_s > 0.15

    wait_until(stands, timeout_s, "standstill")


def shifted(pose: Pose, x_m: float = 0.0, y_m: float = 0.0, z_m: float = 0.0) -> Pose:
    """Returns a pose moved by this much."""
    x, y, z = pose.position_m
    return Pose((x + x_m, y + y_m, z + z_m), pose.quaternion_xyzw)


def _to_line(point: tuple[float, ...], start: tuple[float, ...], end: tuple[float, ...]) -> float:
    along = [b - a for a, b in zip(start, end, strict=True)]
    off = [b - a for a, b in zip(start, point, strict=True)]
    square = sum(value * value for value in along)
    share = min(max(sum(a * b for a, b in zip(along, off, strict=True)) / square, 0.0), 1.0)
    return math.hypot(*(b - share * a for a, b in zip(along, off, strict=True)))
