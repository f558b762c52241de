"""Watches a motion that was started until the arm stands still, and says how it ended."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode, ArmState, MotionOutcome, Pose, quaternion_distance_rad
from robot_bridge.drivers.ur_state import mode_hint

_POLL_S = 0.008
_BEGIN_S = 0.1
_LOST_S = 1.0
_NEAR_M = 2e-3
_NEAR_RAD = 0.02


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a motion should end: a pose or six joint angles [rad]."""

    pose: Pose | None = None
    joints_rad: tuple[float, ...] = ()

    def missed(self, state: ArmState) -> str:
        """Returns how far ``state`` is from the goal in words; empty if near enough."""
        if self.pose is None:
            angle = max(abs(a - b) for a, b in zip(self.joints_rad, state.joints_rad, strict=True))
            return "" if angle <= _NEAR_RAD else f"a joint ended {angle:.3f} rad away from its goal"
        gap_m = math.dist(self.pose.position_m, state.pose.position_m)
        angle = quaternion_distance_rad(self.pose, state.pose)
        return "" if gap_m <= _NEAR_M and angle <= _NEAR_RAD else f"ended {gap_m:.4f} m and {angle:.3f} rad short"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a motion ended, and why."""

    outcome: MotionOutcome
    reason: str = ""


def watch(
    state: Callable[[], ArmState],
    running: Callable[[], bool],
    stopped: Callable[[], bool],
    goal: Goal,
    until: float,
) -> Ended:
    """Waits for the end of a motion.

    Args:
        state: the newest report.
        running: whether the controller still works on the motion.
        stopped: whether somebody asked for a stop.
        goal: where it should end.
        until: the deadline (monotonic seconds); when it has passed the arm may still move.
    """
    began = time.monotonic()
    while True:
        now = time.monotonic()
        try:
            here = state()
        except RobotError as error:
            return Ended(MotionOutcome.LINK_LOST, str(error))
        age_s = now - here.t_host_ns / 1e9
        if age_s > _LOST_S:
            return Ended(MotionOutcome.LINK_LOST, f"no report for {age_s:.2f} s")
        if not here.mode.can_move:
            return Ended(MotionOutcome.FAULT, f"{here.mode}: {mode_hint(here.mode)}")
        stands = here.mode is not ArmMode.MOVING and now - began > _BEGIN_S
        if stopped() and stands:
            return Ended(MotionOutcome.STOPPED, "stopped on request")
        if not here.program_running and stands:
            return Ended(MotionOutcome.FAULT, "the control program was stopped, at the pendant or by the watchdog")
        if stands and not stopped() and not running():
            missed = goal.missed(here)
            return Ended(MotionOutcome.STOPPED, missed) if missed else Ended(MotionOutcome.REACHED)
        if now > until:
            return Ended(MotionOutcome.TIMEOUT, "the deadline passed")
        time.sleep(_POLL_S)
