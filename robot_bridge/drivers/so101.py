"""The SO-101 (and SO-100): six Feetech servos on a serial bus, moved from the host tick by tick.

It promises little, because it has little: no stop input, no wrench, no watchdog, no clock of its own. It moves with the
tool straight down at 0.10 m/s at most, and a person must be present.
"""

import time
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.contracts import Arm, ArmMode, ArmState, Capability, MotionOutcome, MotionResult, Pose
from robot_bridge.driver import ArmDriver, GripperDriver
from robot_bridge.drivers.no_stop import NoStopChannel
from robot_bridge.drivers.so101_geometry import Joints, forward, inverse, tilt_rad, to_tool
from robot_bridge.drivers.so101_gripper import So101Gripper, So101GripperOptions
from robot_bridge.drivers.so101_loop import BusLoop, Reading
from robot_bridge.drivers.so101_motions import JointMotion, LineMotion, Motion, StreamMotion
from robot_bridge.drivers.so101_options import SPEED_CAP_M_S, STEPS_PER_RAD, Calibration, So101Options, load_calibration

TILT_RAD: Final = 0.10
"""A tool so far from straight down is not moved in lines; gravity alone bends the arm by a part of this."""

HOLD_DECEL_M_S2: Final = 0.3
BRAKE_S: Final = 2.0


class So101Arm:
    """Satisfies ``robot_bridge.contracts.Arm``."""

    def __init__(self, options: So101Options) -> None:
        self._options = options
        self._calibration = load_calibration(options.calibration_file)
        self._loop = BusLoop(options, self._calibration)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Motion and nothing else."""
        return frozenset({Capability.CARTESIAN_MOVE, Capability.CARTESIAN_SERVO, Capability.JOINT_MOVE})

    @property
    def calibration(self) -> Calibration:
        """What the servos' steps mean."""
        return self._calibration

    @property
    def loop(self) -> BusLoop:
        """The bus, which the gripper shares."""
        return self._loop

    def connect(self, deadline_s: float) -> None:
        """Finds the six servos and makes them hold where they are. Raises RobotError that names the missing ones."""
        try:
            self._loop.start()
        except RobotError:
            self._loop.close()
            raise

    def state(self) -> ArmState:
        """Returns the newest report; its ``t_controller_s`` is when the host asked, for the servos have no clock."""
        reading = self._reading()
        joints = self._calibration.angles_rad(reading.steps)
        return ArmState(
            t_host_ns=reading.t_host_ns,
            t_controller_s=reading.t_host_ns / 1e9,
            pose=forward(self._options.geometry, joints),
            twist=self._twist(reading, joints),
            wrench=None,
            joints_rad=joints,
            mode=self._mode(reading),
            joint_temperature_c=reading.temperature_c,
            codes={
                f"servo_{at}": fault.value for at, fault in zip(self._calibration.servos, reading.faults, strict=True)
            },
        )

    def move_to(self, target: Pose, speed_m_s: float, accel_m_s2: float, deadline_s: float) -> MotionResult:
        """Moves in a straight line, at 0.10 m/s at most; the whole line is checked before anything moves."""
        refusal = self._refusal(target)
        if refusal or not (speed_m_s > 0 and accel_m_s2 > 0):
            return MotionResult(MotionOutcome.REJECTED, refusal or "speed and acceleration must be more than 0")
        joints = self._loop.goal_joints()
        start = to_tool(forward(self._options.geometry, joints))
        speed = min(speed_m_s, SPEED_CAP_M_S)
        motion = LineMotion(
            self._options.geometry, start, to_tool(target), speed, accel_m_s2, self._options.yaw_rate_rad_s
        )
        refusal = motion.check(lambda at: self._calibration.steps(at) is not None, joints[4])
        if refusal:
            return MotionResult(MotionOutcome.REJECTED, refusal)
        return self._go(motion, deadline_s)

    def move_joints(self, target_rad: tuple[float, ...], speed_rad_s: float, deadline_s: float) -> MotionResult:
        """Moves the five joints of the model; the only way to a vertical tool from a pose that is not."""
        refusal = self._not_ready()
        if refusal:
            return MotionResult(MotionOutcome.REJECTED, refusal)
        if len(target_rad) != 5 or speed_rad_s <= 0:
            return MotionResult(
                MotionOutcome.REJECTED, f"found {len(target_rad)} joints, expected 5, and a speed above 0"
            )
        pan, lift, elbow, flex, roll = target_rad
        if self._calibration.steps((pan, lift, elbow, flex, roll)) is None:
            return MotionResult(MotionOutcome.REJECTED, f"{target_rad} is beyond a joint's limits")
        speed = min(speed_rad_s, self._options.joint_speed_rad_s)
        motion = JointMotion(
            self._options.geometry, self._loop.goal_joints(), (pan, lift, elbow, flex, roll), speed, SPEED_CAP_M_S
        )
        return self._go(motion, deadline_s)

    def servo(self, target: Pose, valid_for_s: float) -> MotionResult:
        """Follows a stream of targets at 0.10 m/s at most."""
        refusal = self._refusal(target)
        joints = self._loop.goal_joints() if not refusal else None
        if joints is None or not valid_for_s > 0:
            return MotionResult(MotionOutcome.REJECTED, refusal or "valid_for_s must be more than 0")
        tool, geometry = to_tool(target), self._options.geometry
        reached = inverse(geometry, tool, joints[4])
        if reached is None or self._calibration.steps(reached) is None:
            return MotionResult(MotionOutcome.REJECTED, "the target is out of the arm's reach with the tool vertical")
        motion = self._loop.motion
        if not isinstance(motion, StreamMotion):
            start = to_tool(forward(geometry, joints))
            motion = StreamMotion(geometry, start, joints[4], SPEED_CAP_M_S, self._options.yaw_rate_rad_s)
            motion.aim(tool, valid_for_s)
            self._loop.begin(motion)
        motion.aim(tool, valid_for_s)
        return MotionResult(MotionOutcome.REACHED)

    def hold(self) -> None:
        """Slows down on the path and stands."""
        self._loop.brake(HOLD_DECEL_M_S2)

    def stop(self, decel_m_s2: float) -> None:
        """Slows down on the path as fast as asked; a servo cannot do it faster than its goals stop."""
        self._loop.brake(max(0.01, decel_m_s2))

    def recover(self) -> None:
        """Makes the servos hold where they are and looks whether their faults are gone; raises RobotError if not."""
        self._loop.grip_tight()
        reading = self._reading()
        if any(reading.faults):
            raise RobotError(f"servos still at fault: {dict(self.state().codes)}; let them cool, look at the supply")

    def zero_wrench(self) -> None:
        """Does nothing: there is no wrench."""

    def set_payload(self, mass_kg: float, centre_m: tuple[float, float, float]) -> None:
        """Does nothing: the servos have no model of the arm."""

    def close(self) -> None:
        """Ends the motion and frees the port; the servos hold where they are."""
        if self._loop.moving:
            self._loop.brake(1.0)
            self._loop.wait(time.monotonic() + BRAKE_S)
        self._loop.close()

    def _go(self, motion: Motion, deadline_s: float) -> MotionResult:
        self._loop.begin(motion)
        ended = self._loop.wait(time.monotonic() + deadline_s)
        if ended is None:
            self._loop.brake(1.0)
            self._loop.wait(time.monotonic() + BRAKE_S)
            ended = (MotionOutcome.TIMEOUT, f"not there within {deadline_s:g} s")
        pose = None if ended[0] is MotionOutcome.LINK_LOST else self.state().pose
        return MotionResult(ended[0], ended[1], pose)

    def _reading(self) -> Reading:
        reading = self._loop.reading
        if reading is None:
            raise RobotError("no report from the servos yet; call connect() first")
        return reading

    def _not_ready(self) -> str:
        if self._loop.lost:
            return f"the bus is lost: {self._loop.lost}. Start a new process and connect"
        mode = self._mode(self._reading())
        return "" if mode.can_move else f"the arm is in mode {mode}: call recover() once a person has looked at it"

    def _refusal(self, target: Pose) -> str:
        refusal = self._not_ready()
        if refusal:
            return refusal
        if tilt_rad(target) > TILT_RAD:
            return f"the target tilts the tool by {tilt_rad(target):.2f} rad; five joints keep it vertical"
        tilt = tilt_rad(forward(self._options.geometry, self._loop.goal_joints()))
        if tilt > TILT_RAD:
            return f"the tool is {tilt:.2f} rad from vertical; switch its power off and set it upright by hand"
        return ""

    def _mode(self, reading: Reading) -> ArmMode:
        if self._loop.lost:
            return ArmMode.OFFLINE
        if any(reading.faults):
            return ArmMode.FAULT
        return ArmMode.MOVING if self._loop.moving else ArmMode.READY

    def _twist(self, reading: Reading, joints: Joints) -> tuple[float, float, float, float, float, float]:
        """The measured joint speeds, carried through the arm over a short time."""
        dt_s = 0.01
        speeds = [
            joint.direction * speed / STEPS_PER_RAD
            for joint, speed in zip(self._calibration.joints, reading.speeds[:5], strict=True)
        ]
        pan, lift, elbow, flex, roll = (at + dt_s * speed for at, speed in zip(joints, speeds, strict=True))
        here = forward(self._options.geometry, joints).position_m
        there = forward(self._options.geometry, (pan, lift, elbow, flex, roll)).position_m
        x, y, z = ((b - a) / dt_s for a, b in zip(here, there, strict=True))
        return x, y, z, 0.0, 0.0, speeds[0] + speeds[4]


def _no_stop(options: So101Options) -> NoStopChannel:
    return NoStopChannel(
        f"the servo bus on {options.port} has one master, the arm's own process, and the servos have no stop input. "
        "When that process ends, they hold their last goal, which lies one tick ahead of the tool"
    )


def _open_gripper(options: So101GripperOptions, arm: Arm) -> So101Gripper:
    if not isinstance(arm, So101Arm):
        raise RobotError(f"the so101 gripper is a servo on the arm's own bus, but the arm is {type(arm).__name__}")
    return So101Gripper(options, arm.loop, arm.calibration.gripper)


DRIVER = ArmDriver(options=So101Options, open=So101Arm, open_stop_channel=_no_stop, extra="so101")
GRIPPER_DRIVER = GripperDriver(options=So101GripperOptions, open=_open_gripper, extra="so101")
