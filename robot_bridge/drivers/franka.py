"""Franka FR3 and Panda with franky: its real-time thread plans and follows, this driver commands and watches.

A connection that failed is dead for good, and a second one waits for ever for the first to end: an arm lives in a
process of its own that ends with it. The controller stops the arm by itself after 20 missed packets (20 ms), so the
death of the process is its stop.
"""

import math
import threading
import time
from typing import Any, Final

from qtopt.errors import RobotError
from robot_bridge.contracts import Arm, ArmMode, ArmState, Capability, MotionOutcome, MotionResult, Pose
from robot_bridge.driver import ArmDriver, GripperDriver
from robot_bridge.drivers.franka_frames import (
    force_condition,
    joint_motion,
    line_motion,
    misplaced,
    out_of_reach,
    report,
    same_pose,
    steepest_share,
    stop_motion,
)
from robot_bridge.drivers.franka_gripper import FrankaGripper, FrankaGripperOptions
from robot_bridge.drivers.franka_options import FrankaOptions
from robot_bridge.drivers.no_stop import NoStopChannel

SLICE_S: Final = 0.05
POLL_S: Final = 0.005
STAND_S: Final = 3.0
STAND_GUARD_S: Final = 30.0
STANDING_RAD: Final = 5e-4
STANDING_FOR_S: Final = 0.1
REACHED_M: Final = 0.003
REACHED_RAD: Final = 0.02
_BEYOND: Final = "the target is beyond the arm's reach"
_WORSE_N: Final = 8.0


class FrankaArm:
    """Satisfies ``robot_bridge.contracts.Arm``."""

    def __init__(self, options: FrankaOptions) -> None:
        import franky  # part of an extra

        self._franky: Any = franky
        self._options = options
        self._robot: Any = None
        self._state: ArmState | None = None
        self._lost = ""
        self._stopping = threading.Event()
        self._cartesian = True
        self._stream_until_s = 0.0
        self._zero: tuple[float, ...] = (0.0,) * 6
        self._closing = threading.Event()
        self._moving = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """No stop status and no second channel; the wrench is estimated from the joints' torques."""
        return frozenset(
            {
                Capability.CARTESIAN_MOVE,
                Capability.CARTESIAN_SERVO,
                Capability.JOINT_MOVE,
                Capability.WRENCH_ESTIMATED,
                Capability.CONTACT_STOP,
                Capability.CONTROLLER_WATCHDOG,
            }
        )

    @property
    def host(self) -> str:
        """The controller's address, where the hand is found too."""
        return self._options.host

    def connect(self, deadline_s: float) -> None:
        """Connects, and sets collision thresholds and limits. Raises RobotError; its process is then to be ended."""
        self._robot = self._open(deadline_s)
        try:
            self._set_up()
        except self._franky.Exception as error:
            raise RobotError(f"the controller at {self.host} refused its settings: {error}") from error
        self._thread = threading.Thread(target=self._poll, name="franka-state", daemon=True)
        self._thread.start()

    def _open(self, deadline_s: float) -> Any:
        """Constructs in a thread, because the constructor waits for ever while another client holds the arm."""
        made: list[Any] = []
        realtime = self._franky.RealtimeConfig
        config = realtime.Enforce if self._options.realtime else realtime.Ignore

        def construct() -> None:
            try:
                made.append(self._franky.Robot(self.host, realtime_config=config))
            except self._franky.Exception as error:
                made.append(error)

        thread = threading.Thread(target=construct, name="franka-connect", daemon=True)
        thread.start()
        thread.join(deadline_s)
        if not made:
            raise RobotError(
                f"the controller at {self.host} did not let us in within {deadline_s:g} s: does another client hold "
                "it, is FCI activated in Desk, is the address right? End this process before trying again"
            )
        if isinstance(made[0], Exception):
            raise RobotError(f"the controller at {self.host}: {made[0]}") from made[0]
        return made[0]

    def _set_up(self) -> None:
        options, robot = self._options, self._robot
        robot.set_collision_behavior(options.collision_torque_nm, options.collision_force_n)
        wrong = misplaced(robot.state.F_T_EE, options.flange_to_tip_m, options.flange_to_tip_rad)
        if wrong:
            raise RobotError(f"{wrong}; set the end effector in Desk, or the options")
        self._state = self._report()

    def state(self) -> ArmState:
        """Returns the newest report; raises RobotError before ``connect``."""
        if self._state is None:
            raise RobotError("no report from the arm yet; call connect() first")
        return self._state

    def move_to(self, target: Pose, speed_m_s: float, accel_m_s2: float, deadline_s: float) -> MotionResult:
        """Moves in a straight line; CONTACT beyond an estimated force of ``contact_force_n``, but for steeply up.

        Where as much presses along an axis as it begins, it ends on 8 N more along that axis.
        """
        if not (speed_m_s > 0 and accel_m_s2 > 0):
            return MotionResult(MotionOutcome.REJECTED, "speed and acceleration must be more than 0")
        if out_of_reach(target, self._options.flange_to_tip_m):
            return MotionResult(MotionOutcome.REJECTED, _BEYOND)
        motion = line_motion(self._franky, target)
        if not _leads_up(self.state().pose, target):  # which is the way out of a contact
            force = force_condition(self._franky, self._zero, self._contact_forces_n())
            motion.add_reaction(self._franky.CartesianPoseReaction(force, stop_motion(self._franky)))
        share = steepest_share(self.state().pose, target)
        speed_m_s = min(speed_m_s, self._options.speed_limit_m_s)
        result = self._go(motion, share * speed_m_s, share * accel_m_s2, deadline_s, cartesian=True)
        there = result.pose is not None and same_pose(result.pose, target, REACHED_M, REACHED_RAD)
        if result.outcome is MotionOutcome.REACHED and not there:
            return MotionResult(MotionOutcome.CONTACT, f"more than {self._options.contact_force_n:g} N", result.pose)
        return result

    def move_joints(self, target_rad: tuple[float, ...], speed_rad_s: float, deadline_s: float) -> MotionResult:
        """Moves the seven joints."""
        if len(target_rad) != 7 or not speed_rad_s > 0:
            return MotionResult(
                MotionOutcome.REJECTED, f"found {len(target_rad)} joints, expected 7, and a speed above 0"
            )
        slowest = float(min(self._robot.joint_velocity_limit.get()))
        motion = joint_motion(self._franky, target_rad, min(1.0, speed_rad_s / slowest))
        return self._go(motion, self._options.speed_limit_m_s, 1.0, deadline_s, cartesian=False)

    def servo(self, target: Pose, valid_for_s: float) -> MotionResult:
        """Takes a new target on the fly; the arm holds when none came for ``valid_for_s``."""
        refusal = self._refusal()
        if not refusal and out_of_reach(target, self._options.flange_to_tip_m):
            refusal = _BEYOND
        if refusal or not valid_for_s > 0:
            return MotionResult(MotionOutcome.REJECTED, refusal or "valid_for_s must be more than 0")
        try:
            if self._stream_until_s == 0.0:
                self._limit(self._options.speed_limit_m_s / math.sqrt(3.0), 1.0)
            self._cartesian, self._stream_until_s = True, time.monotonic() + valid_for_s
            self._robot.move(line_motion(self._franky, target), asynchronous=True)
        except self._franky.Exception as error:
            return self._failed(error)
        return MotionResult(MotionOutcome.REACHED)

    def hold(self) -> None:
        """Slows down smoothly and stands."""
        self._stopping.set()
        self._stream_until_s = 0.0
        try:
            if self.state().mode is ArmMode.MOVING:
                self._robot.move(stop_motion(self._franky, cartesian=self._cartesian), asynchronous=True)
        except self._franky.Exception as error:
            raise RobotError(f"hold failed: {error}") from error

    def stop(self, decel_m_s2: float) -> None:
        """Tells the controller to stop; it brakes as hard as it does, ``decel_m_s2`` is not heard."""
        self._stopping.set()
        self._stream_until_s = 0.0
        try:
            if self._robot is not None:
                self._robot.stop()
        except self._franky.Exception as error:
            if isinstance(error, self._franky.NetworkException):
                self._lost = self._lost or str(error)

    def recover(self) -> None:
        """Lets the controller leave a reflex; raises RobotError if it does not, as with the user stop pressed."""
        try:
            recovered = self._robot.recover_from_errors()
        except self._franky.Exception as error:
            raise RobotError(f"the controller did not recover: {error}") from error
        mode = self._report().mode
        if not recovered or not mode.can_move:
            raise RobotError(f"the arm stays in mode {mode}; release the user stop and look at Desk")

    def zero_wrench(self) -> None:
        """Takes the present estimate as zero."""
        self._zero = tuple(float(value) for value in self._robot.state.O_F_ext_hat_K)

    def set_payload(self, mass_kg: float, centre_m: tuple[float, float, float]) -> None:
        """Tells the controller what hangs at the flange beside the hand; raises RobotError while it moves."""
        inertia = [1e-4 * max(mass_kg, 0.1) if index % 4 == 0 else 0.0 for index in range(9)]
        try:
            self._robot.set_load(mass_kg, list(centre_m), inertia)
        except self._franky.Exception as error:
            raise RobotError(f"the controller refused the payload: {error}") from error

    def close(self) -> None:
        """Stops, and lets a motion end; the connection itself ends with the process. A second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.stop(1.0)
        if self._thread is not None:
            self._thread.join(2.0)
        if self._moving.acquire(timeout=STAND_GUARD_S):
            self._robot = None

    def _limit(self, speed_m_s: float, accel_m_s2: float) -> None:
        """Sets what each of the base's axes may do."""
        options, robot = self._options, self._robot
        robot.translation_velocity_limit.set(min(speed_m_s, options.speed_limit_m_s))
        robot.translation_acceleration_limit.set(min(accel_m_s2, robot.translation_acceleration_limit.max))
        robot.rotation_velocity_limit.set(options.yaw_rate_rad_s)

    def _go(self, motion: Any, speed: float, accel: float, deadline_s: float, *, cartesian: bool) -> MotionResult:
        with self._moving:
            refusal = self._refusal()
            if refusal:
                return MotionResult(MotionOutcome.REJECTED, refusal)
            self._stopping.clear()
            end_s = time.monotonic() + deadline_s
            try:
                self._limit(speed, accel)
                self._cartesian = cartesian
                self._robot.move(motion, asynchronous=True)
                return self._watch(end_s)
            except self._franky.Exception as error:
                return self._failed(error)

    def _watch(self, end_s: float) -> MotionResult:
        timed_out = False
        while not self._robot.join_motion(SLICE_S):
            if self._lost:
                return MotionResult(MotionOutcome.LINK_LOST, self._lost)
            if timed_out and time.monotonic() > end_s + STAND_S:
                self._lost = "the arm did not end its motion when told to stop"
                return MotionResult(MotionOutcome.LINK_LOST, self._lost)
            if not timed_out and time.monotonic() > end_s:
                timed_out = True
                self.hold()
        if timed_out:
            return self._ended(MotionOutcome.TIMEOUT, "the deadline passed")
        return self._ended(MotionOutcome.STOPPED if self._stopping.is_set() else MotionOutcome.REACHED)

    def _ended(self, outcome: MotionOutcome, reason: str = "") -> MotionResult:
        """Returns a result once the arm stands; TIMEOUT, and a stop, where it does not come to rest."""
        stands, pose = self._comes_to_rest(), self._report().pose
        if stands or outcome is MotionOutcome.FAULT:
            return MotionResult(outcome, reason, pose)
        self.stop(1.0)
        reason = f"the joints still moved {STAND_S:g} s after the motion had ended; the arm was told to stop"
        return MotionResult(MotionOutcome.TIMEOUT, reason, pose)

    def _comes_to_rest(self) -> bool:
        """Waits until no joint has left its place for a while: a motion ends for franky when its last goal was sent.

        Places and not speeds are judged, because a joint that trembles on the spot has a speed, but stands; and by the
        controller's clock, which a controller that is late does not advance.
        """
        guard_s = time.monotonic() + STAND_GUARD_S
        began = since = now = self._robot.state
        while now.time.to_sec() - began.time.to_sec() < STAND_S and time.monotonic() < guard_s:
            time.sleep(POLL_S)
            now = self._robot.state
            if max(abs(float(a) - float(b)) for a, b in zip(now.q, since.q, strict=True)) > STANDING_RAD:
                since = now
            elif now.time.to_sec() - since.time.to_sec() >= STANDING_FOR_S:
                return True
        return False

    def _failed(self, error: Exception) -> MotionResult:
        """What an exception of franky means; the outcome of a motion is a value."""
        if isinstance(error, self._franky.NetworkException):
            self._lost = self._lost or str(error)
            return MotionResult(MotionOutcome.LINK_LOST, self._lost)
        if not isinstance(error, self._franky.ControlException):
            return MotionResult(MotionOutcome.REJECTED, str(error), self._state.pose if self._state else None)
        try:
            if self._stopping.is_set():
                return self._ended(MotionOutcome.STOPPED)
            return self._ended(MotionOutcome.FAULT, str(error))
        except self._franky.NetworkException as lost:
            return self._failed(lost)

    def _contact_forces_n(self) -> tuple[float, float, float]:
        """Returns the force along each axis that ends a motion which begins now."""
        limit_n = self._options.contact_force_n
        present_n = [abs(each) for each in self.state().wrench or (0.0, 0.0, 0.0)]
        x_n, y_n, z_n, *_ = (max(limit_n, each + _WORSE_N) for each in present_n)
        return x_n, y_n, z_n

    def _refusal(self) -> str:
        if self._lost:
            return f"the connection is lost: {self._lost}. Start a new process and connect"
        if self._closing.is_set():
            return "the arm was closed"
        mode = self.state().mode
        return "" if mode.can_move else f"the arm is in mode {mode}; recover() once a person has looked at it"

    def _report(self) -> ArmState:
        return report(self._robot, self._franky, self._zero)

    def _poll(self) -> None:
        while not self._closing.wait(POLL_S) and not self._lost:
            try:
                report = self._report()
                if self._state is None or report.t_controller_s != self._state.t_controller_s:
                    self._state = report  # franky repeats the last one of a controller that is silent
                if 0.0 < self._stream_until_s < time.monotonic():
                    self.hold()
            except (self._franky.NetworkException, RobotError) as error:
                self._lost = self._lost or str(error)
            except self._franky.Exception:  # a motion's own end, which its caller sees
                continue


def _leads_up(here: Pose, target: Pose) -> bool:
    """Whether a motion rises twice as far as it goes aside."""
    (x_m, y_m, z_m), (to_x_m, to_y_m, to_z_m) = here.position_m, target.position_m
    aside_m = math.hypot(to_x_m - x_m, to_y_m - y_m)
    return to_z_m > z_m and aside_m < max(REACHED_M, (to_z_m - z_m) / 2)


def _open_gripper(options: FrankaGripperOptions, arm: Arm) -> FrankaGripper:
    if not isinstance(arm, FrankaArm):
        raise RobotError(f"the Franka Hand is found through a Franka arm, but the arm is {type(arm).__name__}")
    return FrankaGripper(options, arm.host)


def _no_stop(options: FrankaOptions) -> NoStopChannel:
    return NoStopChannel(
        f"{options.host} accepts one FCI connection, the arm's own. When its process ends, the controller misses its "
        "packets and stops the arm after 20 ms"
    )


DRIVER = ArmDriver(options=FrankaOptions, open=FrankaArm, open_stop_channel=_no_stop, extra="franka")
GRIPPER_DRIVER = GripperDriver(options=FrankaGripperOptions, open=_open_gripper, extra="franka")
