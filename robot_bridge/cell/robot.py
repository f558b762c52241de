"""A physical cell's arm and gripper as the ``Robot`` that ``GraspEnv`` asks: verbs in, values or a reason out."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from qtopt.errors import RobotError
from robot_bridge.cell.processes import CellProcesses
from robot_bridge.cell.records import STILL_M_S, speed_m_s
from robot_bridge.cell_file import CellFile
from robot_bridge.contracts import ArmState, MotionOutcome, Pose, Reaction
from robot_bridge.displacement import TURN_PER_M, tilt_rad, to_pose, to_tool, waypoints
from robot_bridge.robot import RobotState, StepHeld, ToolPose
from robot_bridge.safety.facts import Phase
from robot_bridge.safety.rules import EASED, PRESSED, RECOVERABLE_MODES

_EXTRA_S: Final = 4.0
_ANSWER_S: Final = 2.0
_LEAD_OUT_S: Final = 10.0
_HOLD_S: Final = 0.1
_TRAVEL_ABOVE_RIM_M: Final = 0.15
TURN_RAD: Final = math.radians(60.0)
_UPRIGHT_RAD: Final = math.radians(10.0)
_NEAR_M: Final = 0.02
_ASIDE_M: Final = 0.006
_ASIDE_RAD: Final = math.radians(3.0)
_DETOURS: Final = 2
"""So often what is in the way of one action is gone over."""
_OVER_M: Final = 0.03
"""So far above where it was met, at least, where the workspace is high enough."""
_LEAST_OVER_M: Final = 0.005
_REST_S: Final = 2.0
_BLOCKED: Final = "contact"
"""Not a rule of ours: the arm itself ended a motion on something."""
_IN_THE_WAY: Final = (*EASED, _BLOCKED)


class CellRobot:
    """Satisfies ``robot_bridge.robot.Robot`` over the processes of a cell.

    Args:
        cell: what the cell file says.
        processes: running.

    Attributes:
        processes: those in use.
        closing: called when the robot is closed, to free what else was opened with it.
        contacts: how often the tool was led out of what pressed on it, since the last way home began.
        yields: how often the arm rose a little from what bore its closing fingers, since then.
        detours: how often the rest of a step led over what was in the way, since then.
        holds: how often the rest of a step was given up because something had held it, since then.
        goes_over: whether steps of an episode lead over what is in the way.
        widths_m: smallest and largest opening of the gripper; known once it was made ready.
        slow: whether every motion is made at the speed of a new cell, as for a calibration.
    """

    def __init__(self, cell: CellFile, processes: CellProcesses) -> None:
        self._cell, self.processes = cell, processes
        self._closed_fingers, self._opening_m = False, math.nan
        self.widths_m = (0.0, 0.0)
        self._prepared = False
        self._phase = Phase.IDLE
        self.goes_over = True
        self.contacts = self.yields = self.detours = self.holds = 0
        self.slow = False
        self.closing: Callable[[], None] | None = None

    def state(self) -> RobotState:
        """Returns what the arm measures now; raises RobotError where its reports are old."""
        arm, width_m = self.arm(), self._width_m()
        came_m = self._opening_m - width_m if self._closed_fingers else math.nan
        return RobotState(
            self._tool(arm.pose), self._closed_fingers, width_m, math.inf if math.isnan(came_m) else came_m
        )

    def move(self, target: ToolPose) -> ToolPose:
        """Moves in a straight line, in an episode over what is in the way; returns the pose reached.

        What bears the tool, or presses on it from aside, ends the way there. The rest leads over it, slowly: straight
        up, level, and down again in steps. So the fingers come to where they were sent, turned as they were told,
        however full the bin is: a policy that learned where arms push harder is off by centimetres on one that may not.
        What is in the way for the third time, or bears the tool where it was sent, ends the motion.

        Raises:
            StepHeld: a step of an episode was held by what has passed since.
            RobotError: the motion was refused or ended otherwise; the message names the rule.
        """
        start = self._tool(self.arm().pose)
        reached, ended_by = self._go(target)
        for _ in range(_DETOURS):
            over = self.goes_over and self._phase is Phase.EPISODE and ended_by in _IN_THE_WAY
            legs = self._way_over(start, reached, target) if over else []
            if not legs:
                break
            self.detours += 1
            reached, ended_by = self._go(*legs, slow=True)
        return reached

    def grip(self, *, close: bool) -> None:
        """Closes the fingers with limited force, or opens them.

        Where that presses on the tool more than it bears, the fingers of an episode go back to where they were.

        Raises:
            StepHeld: something held the episode as they were to begin; they were not moved.
            RobotError: on a fault.
        """
        if self._phase is Phase.EPISODE:
            answer = self.processes.ask("may_move", _ANSWER_S)
            if answer.get("rule") != PRESSED:  # which the grip itself leads out of
                self._require_done("grip", self._end_step(answer) if _is_held(answer) else answer)
        if close and not self._closed_fingers:
            self._opening_m = self._width_m()
        grasp = self._cell.grasp
        width_m = self.widths_m[0] if close else self._open_width_m()
        answer = self._ask(
            "grip",
            2 * grasp.timeout_s + _EXTRA_S,  # there, and back from what it pressed on
            width=width_m,
            speed=grasp.speed_m_s,
            force=grasp.close_force_n,
            deadline_s=grasp.timeout_s,
        )
        self.yields += answer["yields"]
        if answer.get("undone"):  # they pressed on something with all that the arm bears, and went back
            self.contacts += 1
        else:
            self._closed_fingers = close
        self._await_gripper_since(answer["at_ns"])

    def home(self, start: ToolPose) -> ToolPose:
        """Rises straight up, goes over ``start``, opens the fingers there and comes down; returns the pose reached.

        Raises:
            RobotError: the tool is not where a straight way up is known to be free; a person has to move it.
        """
        self.contacts = self.yields = self.detours = self.holds = 0
        self._begin_transit()
        over = ToolPose(start.x_m, start.y_m, self.travel_z_m, start.yaw_rad)
        self._require_reached(over, self.move(over))
        if self._closed_fingers or self.state().gripper_width_m < self._open_width_m() - 0.005:
            self.grip(close=False)
        self._ask("zero_wrench", _ANSWER_S)
        reached = self.move(start)
        self.enter(Phase.EPISODE)
        return reached

    def rise(self) -> None:
        """Readies the gripper and rises straight up, out of the bin; nothing else may move before.

        Raises:
            RobotError: the tool is not where a straight way up is known to be free; a person has to move it.
        """
        self._begin_transit()

    def stopped_itself(self) -> bool:
        """Returns whether the controller is in a stop that ``recover`` may clear; raises RobotError as ``arm``."""
        return self.arm().mode in RECOVERABLE_MODES

    def recover(self) -> None:
        """Clears a protective stop or a reflex without a person, and rises a little.

        Raises:
            RobotError: ``[recovery]`` does not allow it, or not yet.
        """
        self._ask("auto_recover", _ANSWER_S + self._cell.recovery.wait_s)

    def go_clear(self) -> ToolPose:
        """Rises straight up and goes to the pose from which the camera sees the bin; the fingers stay as they are."""
        self._begin_transit()
        target = ToolPose(*self.clear_m, self._cell.home.yaw_rad)
        reached = self.move(target)
        self._require_reached(target, reached)
        return reached

    def stop(self) -> None:
        """Stands still at once; the fingers keep what they hold."""
        self.processes.tell("stop")

    def close(self) -> None:
        """Stops, and ends the processes; a second call does nothing."""
        self.processes.close()
        if self.closing is not None:
            self.closing()

    def renew(self, processes: CellProcesses) -> None:
        """Goes on with processes that were started anew; the fingers are taken to be what they were last told."""
        self.processes, self._prepared = processes, False

    @property
    def travel_z_m(self) -> float:
        """Height at which the arm crosses the bin."""
        top_m = self._cell.bin.floor_z_m + self._cell.episode.top_height_m
        return min(top_m, self._cell.bin.rim_z_m + _TRAVEL_ABOVE_RIM_M)

    @property
    def clear_m(self) -> tuple[float, float, float]:
        """Place of the tool [m] from where the camera sees the bin."""
        geometry = self._cell.bin
        x_m, y_m = ((a + b) / 2 for a, b in zip(geometry.inner_min_m, geometry.inner_max_m, strict=True))
        return self._cell.home.clear_pose_m or (x_m, y_m, self.travel_z_m)

    def enter(self, phase: Phase) -> None:
        """Tells the safety monitors what comes now; raises RobotError where one forbids it.

        In an episode a target far from the tool is cut to the size of a step; what crosses the bin, as a drop test
        does, has to be in transit.
        """
        self._ask("enter", _ANSWER_S, phase=phase.value)
        self._phase = phase

    def _begin_transit(self) -> None:
        """Readies the gripper, once, and rises straight up from where that is known to be safe."""
        arm = self.arm()
        if arm.force_n >= self._cell.contact.retract_n:
            self._require_known(arm)
            self._ask("lead_out", 2 * _LEAD_OUT_S)
        self.enter(Phase.TRANSIT)
        self._await_standing()
        here = self._require_known(self.arm())
        if not self._prepared:
            # It may move the fingers: never before a person asked for motion.
            low_m, high_m = self._ask("activate", 12.0, deadline_s=10.0)["widths"]
            if not -0.001 <= low_m < high_m:
                raise RobotError(f"the gripper says that it opens from {low_m} to {high_m} m: it is not ready")
            self.widths_m = low_m, high_m
            self._prepared = True
        if here.z_m < self.travel_z_m - 0.005:
            up = ToolPose(here.x_m, here.y_m, self.travel_z_m, here.yaw_rad)
            self._require_reached(up, self.move(up))

    def _await_standing(self) -> None:
        """Lets a motion that was cut short come to rest: straight up is straight up from there."""
        deadline = time.monotonic() + _REST_S
        while speed_m_s(self.arm()) > STILL_M_S and time.monotonic() < deadline:
            time.sleep(_HOLD_S / 10)

    def _await_gripper_since(self, at_ns: int) -> None:
        """Waits for the report of where the fingers ended: the newest one may still tell of the time before."""
        deadline = time.monotonic() + _ANSWER_S
        while (seen := self.processes.report().gripper) is None or seen.t_host_ns < at_ns:
            if time.monotonic() > deadline:
                raise RobotError(f"grip: no report of the gripper within {_ANSWER_S:.0f} s after its motion")
            time.sleep(_HOLD_S / 20)

    def _require_known(self, arm: ArmState) -> ToolPose:
        """Returns the tool's pose; raises RobotError where rising straight up is not known to be safe."""
        tool, geometry = self._tool(arm.pose), self._cell.bin
        inside = all(
            low - _NEAR_M <= value <= high + _NEAR_M
            for value, low, high in zip((tool.x_m, tool.y_m), geometry.inner_min_m, geometry.inner_max_m, strict=True)
        )
        above = tool.z_m >= geometry.rim_z_m + self._cell.limits.rim_clear_m - _NEAR_M
        upright = tilt_rad(arm.pose) <= _UPRIGHT_RAD
        if upright and (inside or above):
            return tool
        found = (
            f"x {tool.x_m:.3f}, y {tool.y_m:.3f}, z {tool.z_m:.3f} m, {math.degrees(tilt_rad(arm.pose)):.0f} degrees"
        )
        raise RobotError(
            f"home: the tool is at {found} from straight down, expected in the bin or above its rim, pointing down. "
            "Move it there by hand: on the pendant, manually, straight up first, then over the bin; try again then"
        )

    def _way_over(self, start: ToolPose, reached: ToolPose, target: ToolPose) -> list[ToolPose]:
        """Returns the legs over what ended the way from ``start`` at ``reached``; none where none is left or fits in.

        The monitor cuts what leads down to the size of a step, so that has as many legs as it takes.
        """
        if _is_over(reached, target):
            return []
        workspace_top_m = self._cell.bin.floor_z_m + self._cell.episode.top_height_m
        top_m = min(max(start.z_m, target.z_m, reached.z_m + _OVER_M), workspace_top_m)
        if top_m < reached.z_m + _LEAST_OVER_M:
            return []
        drop_m = top_m - target.z_m
        steps = math.ceil(drop_m / self._cell.limits.step_m - 1e-9)
        heights_m = [top_m - drop_m * number / steps for number in range(steps)]
        return [replace(reached, z_m=top_m), *(replace(target, z_m=each) for each in heights_m), target]

    def _go(self, *targets: ToolPose, slow: bool = False) -> tuple[ToolPose, str]:
        """Goes as far as nothing is touched; returns the pose reached and the rule that ended the way before."""
        slow_z_m = self._cell.bin.floor_z_m + self._cell.limits.slow_height_m
        reached = self._tool(self.arm().pose)
        for target in targets:
            for leg in waypoints(reached, target, slow_z_m, TURN_RAD):
                reached, ended_by = self._leg(reached, leg, slow=slow or self.slow)
                if ended_by:
                    return reached, ended_by
        return reached, ""

    def _leg(self, start: ToolPose, leg: ToolPose, *, slow: bool) -> tuple[ToolPose, str]:
        """Makes one straight motion; returns the pose reached, and the rule that ended it on something touched."""
        pose, limits = to_pose(leg), self._cell.limits
        path_m = _gap_m(start, leg)
        turn_s = abs(leg.yaw_rad - start.yaw_rad) / min(limits.yaw_rate_rad_s, TURN_PER_M * limits.slow_speed_m_s)
        deadline_s = path_m / limits.slow_speed_m_s + 2 * turn_s + _EXTRA_S
        answer = self._ask(
            "move",
            deadline_s + _ANSWER_S,
            target=[*pose.position_m, *pose.quaternion_xyzw],
            speed=limits.slow_speed_m_s if slow else limits.speed_m_s,
            accel=limits.accel_m_s2,
            yaw_rate=limits.yaw_rate_rad_s,
            deadline_s=deadline_s,
        )
        self.contacts += answer.get("rule") == PRESSED
        numbers = answer.get("pose")
        pose = self.arm().pose if numbers is None else Pose(tuple(numbers[:3]), tuple(numbers[3:]))
        return self._tool(pose, leg.yaw_rad), str(answer.get("rule") or _BLOCKED) if _touched(answer) else ""

    def _ask(self, do: str, timeout_s: float, **what: Any) -> dict[str, Any]:
        answer = self.processes.ask(do, timeout_s, **what)
        if _is_held(answer):
            if do in ("move", "grip") and self._phase is Phase.EPISODE:
                answer = self._end_step(answer)
            else:
                answer = self._sit_out(answer, lambda: self.processes.ask(do, timeout_s, **what))
        return self._require_done(do, answer)

    def _end_step(self, held: dict[str, Any]) -> dict[str, Any]:
        """Waits until what held a step has passed, and ends it there; returns what it is held by where that stays.

        Raises:
            StepHeld: it has passed.
        """
        answer = self._sit_out(held, lambda: self.processes.ask("may_move", _ANSWER_S))
        if "outcome" in answer:
            return answer
        self.holds += 1
        raise StepHeld(f"the step was held by {held['rule']}: {held['reason']}")

    def _sit_out(self, held: dict[str, Any], again: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Asks again what was held, as it may end by itself and is judged anew each time; not for long."""
        deadline, answer = time.monotonic() + self._cell.watchdog.camera_stop_s, held
        while _is_held(answer) and time.monotonic() < deadline:
            time.sleep(_HOLD_S)
            answer = again()
        return answer

    def _require_done(self, do: str, answer: dict[str, Any]) -> dict[str, Any]:
        outcome = answer.get("outcome")
        if outcome in (None, MotionOutcome.REACHED) or _touched(answer):
            return answer
        rule = f" by the rule {answer['rule']}" if answer.get("rule") else ""
        reason = answer.get("reason") or "the arm gave no reason"
        raise RobotError(f"{do}: {str(outcome).replace('_', ' ')}{rule}: {reason}")

    def _require_reached(self, target: ToolPose, reached: ToolPose) -> None:
        gap_m = _gap_m(target, reached)
        if gap_m > _NEAR_M:
            raise RobotError(
                f"home: the arm stands {1000 * gap_m:.0f} mm from where it should be: something is in the way; look, "
                "free it, and try again"
            )

    def arm(self) -> ArmState:
        """Returns the newest report; raises RobotError before the first, and for one whose numbers are none."""
        report = self.processes.report()
        if report.arm is None:
            raise RobotError("the arm has not reported yet")
        if not report.arm.is_finite():
            raise RobotError("the arm reports a pose, velocity or force that is no number")
        return report.arm

    def _tool(self, pose: Pose, near_yaw_rad: float | None = None) -> ToolPose:
        return to_tool(pose, self._cell.home.yaw_rad if near_yaw_rad is None else near_yaw_rad)

    def _width_m(self) -> float:
        """Returns what the gripper reports; NaN where it has not yet."""
        gripper = self.processes.report().gripper
        return math.nan if gripper is None else gripper.width_m

    def _open_width_m(self) -> float:
        high_m = self.widths_m[1]
        return min(high_m, self._cell.grasp.open_width_m or high_m)


def _is_held(answer: dict[str, Any]) -> bool:
    return answer.get("reaction") == Reaction.HOLD and not _touched(answer)


def _gap_m(a: ToolPose, b: ToolPose) -> float:
    return math.dist((a.x_m, a.y_m, a.z_m), (b.x_m, b.y_m, b.z_m))


def _is_over(reached: ToolPose, target: ToolPose) -> bool:
    aside_m = math.hypot(target.x_m - reached.x_m, target.y_m - reached.y_m)
    return aside_m <= _ASIDE_M and abs(target.yaw_rad - reached.yaw_rad) <= _ASIDE_RAD


def _touched(answer: dict[str, Any]) -> bool:
    """Returns whether a motion ended on something that a descent may end on: no fault, but how a bottom is found."""
    return answer.get("outcome") == MotionOutcome.CONTACT or answer.get("rule") in EASED
