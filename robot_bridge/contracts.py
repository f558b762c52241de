"""What a driver is: the interfaces of arms, grippers and cameras, below the cell of ``robot_bridge.robot``.

Drivers speak metres, seconds, newtons and quaternions (x, y, z, w) in the arm's base frame; a vendor's own units end at
the driver's edge. Host times are ``time.monotonic_ns()``. A pose is ``T_base_tcp``: of the tool point, between the
finger tips. No call blocks without a deadline, and the end of a motion is a value, not an exception.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from qtopt.types import JsonValue, UInt8Array


class Capability(StrEnum):
    """What a driver can honestly do; a cell whose parts cannot do enough does not start."""

    CARTESIAN_MOVE = "cartesian_move"
    CARTESIAN_SERVO = "cartesian_servo"
    JOINT_MOVE = "joint_move"
    WRENCH_MEASURED = "wrench_measured"
    WRENCH_ESTIMATED = "wrench_estimated"
    CONTACT_STOP = "contact_stop"
    STOP_STATUS = "stop_status"
    REMOTE_UNLOCK = "remote_unlock"
    CONTROLLER_WATCHDOG = "controller_watchdog"
    CONTROLLER_BOX = "controller_box"
    SPEED_LIMIT = "speed_limit"
    FREEDRIVE = "freedrive"
    GRIPPER_WIDTH = "gripper_width"
    GRIPPER_OBJECT_FLAG = "gripper_object_flag"
    GRIPPER_FORCE = "gripper_force"
    CAMERA_LOCK = "camera_lock"
    CAMERA_HARDWARE_TIME = "camera_hardware_time"
    SIMULATED = "simulated"


class ArmMode(StrEnum):
    """What the controller says of itself, in one vocabulary for all vendors."""

    OFFLINE = "offline"
    OFF = "off"
    IDLE = "idle"
    READY = "ready"
    MOVING = "moving"
    HOLD = "hold"
    PROTECTIVE_STOP = "protective_stop"
    SAFEGUARD_STOP = "safeguard_stop"
    EMERGENCY_STOP = "emergency_stop"
    REFLEX = "reflex"
    FAULT = "fault"
    MANUAL = "manual"

    @property
    def can_move(self) -> bool:
        """Whether the controller would take a motion command now."""
        return self in (ArmMode.READY, ArmMode.MOVING, ArmMode.HOLD)


@dataclass(frozen=True, slots=True)
class Pose:
    """Position [m] and orientation (unit quaternion x, y, z, w) of the tool point in the base frame."""

    position_m: tuple[float, float, float]
    quaternion_xyzw: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ArmState:
    """One report of a controller.

    Attributes:
        t_host_ns: when this host received it (monotonic).
        t_controller_s: the controller's own clock [s]; its *advance* proves that the report is new.
        pose: T_base_tcp as measured.
        twist: linear [m/s] and angular [rad/s] velocity of the tool point, base frame (6,).
        wrench: force [N] and torque [N m] on the tool, base frame (6,), zeroed where the arm was told to; None without.
            Pressed onto a table, its third number is positive.
        joints_rad: as measured; empty where the arm has no such report.
        mode: see ``ArmMode``.
        program_running: the controller executes our commands; always True where there is no such notion.
        speed_scale: of the operator's speed slider, in (0, 1].
        joint_temperature_c: the hottest joint [degrees Celsius]; None without.
        codes: the vendor's raw status words, for logs and people.
    """

    t_host_ns: int
    t_controller_s: float
    pose: Pose
    twist: tuple[float, float, float, float, float, float]
    wrench: tuple[float, float, float, float, float, float] | None
    joints_rad: tuple[float, ...]
    mode: ArmMode
    program_running: bool = True
    speed_scale: float = 1.0
    joint_temperature_c: float | None = None
    codes: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def force_n(self) -> float:
        """What presses on the tool [N]; nothing where the arm does not feel it."""
        return math.hypot(*self.wrench[:3]) if self.wrench is not None else 0.0

    def is_finite(self) -> bool:
        """Whether pose, velocity and wrench hold nothing but numbers."""
        numbers = (*self.pose.position_m, *self.pose.quaternion_xyzw, *self.twist, *(self.wrench or ()))
        return bool(np.all(np.isfinite(numbers)))


class MotionOutcome(StrEnum):
    """How a motion ended."""

    REACHED = "reached"
    STOPPED = "stopped"  # by stop() or hold()
    CONTACT = "contact"  # something was touched; the arm stands still
    REJECTED = "rejected"  # nothing was moved
    FAULT = "fault"  # the controller stopped it: protective stop, reflex, emergency stop
    TIMEOUT = "timeout"  # the deadline passed; the arm was told to stop
    LINK_LOST = "link_lost"  # nobody knows what the arm does


@dataclass(frozen=True, slots=True)
class MotionResult:
    """How a motion ended, why, and where the tool was then (None if unknown)."""

    outcome: MotionOutcome
    reason: str = ""
    pose: Pose | None = None


class Arm(Protocol):
    """A connection to an arm. Made by one thread; ``stop``, ``hold`` and ``state`` may be called from any other.

    A driver never resumes a motion by itself, never clears a fault unasked, and after a lost link is thrown away: the
    process it lives in ends, and a new one connects.
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do; known after ``connect``."""
        ...

    def connect(self, deadline_s: float) -> None:
        """Connects without any motion. Raises RobotError that names what was found and what to do.

        NotReady where the arm answers, and a person has to act; a driver may as well connect and tell of it as a mode.
        """
        ...

    def state(self) -> ArmState:
        """Returns the newest report at once; its age is the caller's to judge. Raises RobotError if there is none."""
        ...

    def move_to(self, target: Pose, speed_m_s: float, accel_m_s2: float, deadline_s: float) -> MotionResult:
        """Moves in a straight line and returns when the arm stands still, however that came about."""
        ...

    def move_joints(self, target_rad: tuple[float, ...], speed_rad_s: float, deadline_s: float) -> MotionResult:
        """Moves in joint space; REJECTED without ``Capability.JOINT_MOVE``.

        For who sets an arm up: no box holds for it, so that no cell uses it.
        """
        ...

    def servo(self, target: Pose, valid_for_s: float) -> MotionResult:
        """Follows a stream of targets, 10 to 125 a second; the arm holds when none came for ``valid_for_s``."""
        ...

    def hold(self) -> None:
        """Ends the motion smoothly and stands; the next command moves again."""
        ...

    def stop(self, decel_m_s2: float) -> None:
        """Stands still as fast as ``decel_m_s2`` allows. Returns at once; safe in every state; never raises."""
        ...

    def recover(self) -> None:
        """Clears a fault that a person has looked at, without motion. Raises RobotError if the arm stays faulty."""
        ...

    def zero_wrench(self) -> None:
        """Takes the present wrench as zero; called in free air. Nothing happens without a wrench."""
        ...

    def set_payload(self, mass_kg: float, centre_m: tuple[float, float, float]) -> None:
        """Tells the controller what the flange carries (centre of mass in the flange's frame)."""
        ...

    def close(self) -> None:
        """Leaves the arm standing still and frees the connection; a second call does nothing."""
        ...


class StopChannel(Protocol):
    """A second, independent way to an arm for the safety process: it reads and it stops, it cannot move.

    It uses no vendor SDK, and another socket than the arm's driver does.
    """

    def connect(self, deadline_s: float) -> None:
        """Connects; raises RobotError."""
        ...

    def state(self) -> ArmState:
        """Returns the newest report at once. Raises RobotError if there is none."""
        ...

    def stop(self) -> bool:
        """Sends every stop that the vendor knows without motion; returns whether one was accepted. Never raises."""
        ...

    def close(self) -> None:
        """Frees the connection, without a stop."""
        ...


class ObjectSensed(StrEnum):
    """What a gripper itself says about an object between its fingers."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class GripperState:
    """One report of a gripper: opening [m], whether it moves, what it senses, and its fault in words (empty: none)."""

    t_host_ns: int
    width_m: float
    moving: bool
    object_sensed: ObjectSensed
    fault: str = ""


class Gripper(Protocol):
    """A two-finger gripper. Raises RobotError on a fault; the fingers then stay as they are."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The ``GRIPPER_*`` flags it has earned."""
        ...

    @property
    def width_range_m(self) -> tuple[float, float]:
        """Smallest and largest opening [m]."""
        ...

    def connect(self, deadline_s: float) -> None:
        """Connects without motion; raises RobotError."""
        ...

    def activate(self, deadline_s: float) -> None:
        """Makes it ready, which may move the fingers. Does nothing when it is."""
        ...

    def move(self, width_m: float, speed_m_s: float, force_n: float, deadline_s: float) -> GripperState:
        """Moves the fingers and returns when they stand: at ``width_m`` or on an object. Raises RobotError."""
        ...

    def state(self) -> GripperState:
        """Returns the newest report; raises RobotError if the gripper is silent or at fault."""
        ...

    def close(self) -> None:
        """Frees the connection; the fingers stay as they are. A second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture.

    Attributes:
        rgb: uint8 (H, W, 3), of its own.
        t_capture_ns: when the light fell, estimated: received minus the camera's latency (monotonic).
        t_receive_ns: when this host had it (monotonic).
        sequence: counts frames since ``start``.
        settings_hash: of exposure, white balance, focus and size; changes when any of them does.
    """

    rgb: UInt8Array
    t_capture_ns: int
    t_receive_ns: int
    sequence: int
    settings_hash: str


class Camera(Protocol):
    """A camera whose newest frame is always at hand; a thread of its own reads it."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The ``CAMERA_*`` flags it has earned."""
        ...

    def start(self, deadline_s: float) -> None:
        """Opens the camera and waits for its first frame. Raises RobotError."""
        ...

    def latest(self, max_age_s: float, not_before_ns: int = 0) -> Frame:
        """Returns the newest frame, waiting for one captured at ``not_before_ns`` or later, at most ``max_age_s`` long.

        Raises:
            StaleFrame: none that is new enough came.
            FrozenFrame: frames come, but their content has stopped changing.
        """
        ...

    def lock_settings(self) -> Mapping[str, JsonValue]:
        """Fixes exposure, white balance and focus and returns them as read back; RobotError if they will not stay."""
        ...

    def stop(self) -> None:
        """Closes the camera; a second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class MotionCommand:
    """A straight motion asked for: target, speed [m/s] and acceleration [m/s2] along the path, yaw rate [rad/s].

    ``leads_out`` says that it is a way out of something touched, which is not a way that another one goes back along.
    """

    target: Pose
    speed_m_s: float
    accel_m_s2: float
    yaw_rate_rad_s: float
    leads_out: bool = False


class Reaction(StrEnum):
    """What the safety monitor wants, from mild to final."""

    ALLOW = "allow"
    CLAMP = "clamp"  # go on with ``Verdict.command`` instead
    HOLD = "hold"  # stand smoothly; once the cause is gone new commands are taken, the interrupted one is not resumed
    STOP = "stop"  # stand now; an episode ends, unless the tool is led out of what stopped it
    LATCH = "latch"  # stand now; only a person's acknowledgement allows motion again


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reaction, the rule that asked for it (``tcp_speed``, ``state_age``, ...), and why in words with numbers."""

    reaction: Reaction
    rule: str = ""
    reason: str = ""
    command: MotionCommand | None = None


@dataclass(frozen=True, slots=True)
class Latch:
    """Why motion is locked until a person acknowledges: rule, words, and when (seconds since the epoch, for people)."""

    rule: str
    reason: str
    time_s: float


class SafetyMonitor(Protocol):
    """Judges every command before it is sent and every report that comes in. Pure but for its own memory: no I/O."""

    @property
    def latched(self) -> Latch | None:
        """What locks motion, if anything does."""
        ...

    def filter(self, command: MotionCommand, state: ArmState, now_ns: int) -> Verdict:
        """Judges a command: ALLOW, CLAMP with the command to send, or worse. While latched always LATCH."""
        ...

    def observe(self, state: ArmState | None, now_ns: int) -> Verdict:
        """Judges the newest report (None: there is none yet) at ``now_ns``; called at every tick, new report or not."""
        ...

    def acknowledge(self, operator: str, reason: str) -> None:
        """Unlocks motion in a person's name. Raises RobotError where the cause is still there."""
        ...


def quaternion_distance_rad(first: Pose, second: Pose) -> float:
    """Returns the angle [rad] between two orientations."""
    a: npt.NDArray[np.float64] = np.asarray(first.quaternion_xyzw)
    b: npt.NDArray[np.float64] = np.asarray(second.quaternion_xyzw)
    return float(2.0 * np.arccos(min(1.0, abs(float(a @ b)))))
