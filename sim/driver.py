"""Driver number 0: arm, gripper and camera of a plant in this process, behind the contracts of every other driver.

What a physical driver promises is promised here with nothing in between, so that contract tests and the safety code
have a reference. Gripper and camera share the arm's plant.
"""

import contextlib
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

from qtopt.config import STRICT
from qtopt.errors import ConfigError, RobotError, StaleFrame
from qtopt.types import JsonValue
from robot_bridge.contracts import (
    Arm,
    ArmDriver,
    ArmMode,
    ArmState,
    CameraDriver,
    Capability,
    Frame,
    GripperDriver,
    GripperState,
    MotionOutcome,
    MotionResult,
    ObjectSensed,
    Pose,
)
from robot_bridge.displacement import tilt_rad, to_pose, to_tool
from sim.config import SimConfig
from sim.hand import MAX_WIDTH_M
from sim.plant import Plant, PlantState

_POLL_S = 0.004
_BEGIN_S = 0.05
_NEAR_M = 2e-3
_NEAR_RAD = 0.02
_MOST_TILT_RAD = 0.02
_FULL_WIDTH_M = 0.003
_SERVO_SPEED_M_S, _SERVO_ACCEL_M_S2 = 0.25, 0.8
_HOLD_DECEL_M_S2 = 1.0
_plants: dict[str, Plant] = {}


@dataclass(frozen=True)
class SimArmOptions:
    """A simulated arm.

    Attributes:
        name: by which the camera finds the plant.
        seed: of the sequence of bins.
        speedup: simulated seconds in one.
        cell: the simulated cell.
    """

    __pydantic_config__ = STRICT

    name: str = "sim"
    seed: int = 0
    speedup: float = 1.0
    cell: SimConfig = field(default_factory=SimConfig)


class SimArm:
    """A ``robot_bridge.contracts.Arm`` over a plant.

    Args:
        options: the plant is made from them.
        plant: a running plant to use instead; ``close`` then leaves it running.
    """

    def __init__(self, options: SimArmOptions, plant: Plant | None = None) -> None:
        self._options, self._given = options, plant
        self._plant: Plant | None = None
        self._stops = 0
        self._servo_until = 0.0
        self._servo: threading.Thread | None = None
        self._closed = False
        self._zero = (0.0,) * 6

    @property
    def plant(self) -> Plant:
        """The plant. Raises RobotError before ``connect``."""
        if self._plant is None or self._closed:
            raise RobotError("the simulated arm is not connected; connect first")
        return self._plant

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do."""
        return frozenset(
            {
                Capability.CARTESIAN_MOVE,
                Capability.CARTESIAN_SERVO,
                Capability.WRENCH_MEASURED,
                Capability.CONTACT_STOP,
                Capability.STOP_STATUS,
                Capability.SIMULATED,
            }
        )

    def connect(self, deadline_s: float) -> None:
        """Makes and starts the plant, whatever ``deadline_s``."""
        if self._plant is None:
            self._plant = self._given
            if self._plant is None:
                self._plant = Plant(self._options.cell, self._options.seed, self._options.speedup)
                self._plant.start()
            _plants[self._options.name] = self._plant

    def state(self) -> ArmState:
        """Returns the newest report."""
        truth = self.plant.state()
        moving = truth.moving
        a, b, c, d, e, f = (value - zero for value, zero in zip(truth.wrench, self._zero, strict=True))
        return ArmState(
            t_host_ns=time.monotonic_ns(),
            t_controller_s=truth.time_s,
            pose=to_pose(truth.tool),
            twist=truth.twist,
            wrench=(a, b, c, d, e, f),
            joints_rad=truth.joints_rad,
            mode=ArmMode.MOVING if moving else ArmMode.READY,
            codes={"blocked": int(truth.blocked)},
        )

    def move_to(self, target: Pose, speed_m_s: float, accel_m_s2: float, deadline_s: float) -> MotionResult:
        """Moves in a straight line; what stands in the way ends the motion with CONTACT."""
        stops, until = self._stops, time.monotonic() + deadline_s
        if tilt_rad(target) > _MOST_TILT_RAD:
            return self._ended(MotionOutcome.REJECTED, "the simulated hand only points straight down")
        plant = self.plant
        tool = to_tool(target, plant.state().tool.yaw_rad)
        self._servo_until = 0.0
        try:
            plant.move_to(tool, speed_m_s, accel_m_s2)
        except RobotError as error:
            return self._ended(MotionOutcome.REJECTED, str(error))
        while (truth := plant.state()).moving:
            if time.monotonic() > until:
                self.stop(2.0)
                self._await_rest()
                return self._ended(MotionOutcome.TIMEOUT, "the deadline passed")
            time.sleep(_POLL_S)
        if self._stops != stops:
            return self._ended(MotionOutcome.STOPPED, "stopped on request")
        if truth.blocked:
            return self._ended(MotionOutcome.CONTACT, "something stands in the way")
        gap = max(abs(a - b) for a, b in zip(truth.tool.array()[:3], tool.array()[:3], strict=True))
        if gap > _NEAR_M or abs(truth.tool.yaw_rad - tool.yaw_rad) > _NEAR_RAD:
            return self._ended(MotionOutcome.STOPPED, f"ended {gap:.4f} m short")
        return self._ended(MotionOutcome.REACHED)

    def move_joints(self, target_rad: tuple[float, ...], speed_rad_s: float, deadline_s: float) -> MotionResult:
        """Is refused: the hand is not driven by joints."""
        return self._ended(MotionOutcome.REJECTED, "the simulated arm does not move by joints")

    def servo(self, target: Pose, valid_for_s: float) -> MotionResult:
        """Follows ``target``; holds when no other came for ``valid_for_s``."""
        if tilt_rad(target) > _MOST_TILT_RAD:
            return self._ended(MotionOutcome.REJECTED, "the simulated hand only points straight down")
        try:
            tool = to_tool(target, self.plant.state().tool.yaw_rad)
            self.plant.servo_to(tool, _SERVO_SPEED_M_S, _SERVO_ACCEL_M_S2)
        except RobotError as error:
            return self._ended(MotionOutcome.REJECTED, str(error))
        self._servo_until = time.monotonic() + valid_for_s
        if self._servo is None or not self._servo.is_alive():
            self._servo = threading.Thread(target=self._watch_servo, name="sim-servo", daemon=True)
            self._servo.start()
        return self._ended(MotionOutcome.REACHED, "following")

    def hold(self) -> None:
        """Ends the motion smoothly."""
        self.stop(_HOLD_DECEL_M_S2)

    def stop(self, decel_m_s2: float) -> None:
        """Stands still as fast as ``decel_m_s2`` allows."""
        self._stops += 1
        self._servo_until = 0.0
        if self._plant is not None:
            self._plant.stop(max(decel_m_s2, 0.1))

    def recover(self) -> None:
        """Does nothing: a simulated arm has no faults of its own."""

    def zero_wrench(self) -> None:
        """Takes the present wrench as zero."""
        self._zero = self.plant.state().wrench

    def set_payload(self, mass_kg: float, centre_m: tuple[float, float, float]) -> None:
        """Does nothing: the motors carry the hand's weight by themselves."""

    def close(self) -> None:
        """Stops the arm, and ends the plant that ``connect`` made."""
        if self._plant is None or self._closed:
            return
        self.stop(2.0)
        self._await_rest()
        self._closed = True
        if self._given is None:
            _plants.pop(self._options.name, None)
            self._plant.close()

    def _await_rest(self) -> None:
        until = time.monotonic() + 2.0
        with contextlib.suppress(RobotError):
            while self.plant.state().moving and time.monotonic() < until:
                time.sleep(_POLL_S)

    def _watch_servo(self) -> None:
        while (left := self._servo_until - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
        if self._servo_until and not self._closed:
            self.plant.stop(_HOLD_DECEL_M_S2)

    def _ended(self, outcome: MotionOutcome, reason: str = "") -> MotionResult:
        return MotionResult(outcome, reason, to_pose(self.plant.state().tool))


class SimStopChannel:
    """A ``robot_bridge.contracts.StopChannel`` to a plant in this process."""

    def __init__(self, options: SimArmOptions) -> None:
        self._arm = SimArm(options, _plants.get(options.name))
        self._known = options.name in _plants

    def connect(self, deadline_s: float) -> None:
        """Connects. Raises RobotError where no arm of that name has made its plant in this process."""
        if not self._known:
            raise RobotError("no simulated arm runs in this process; connect the arm first")
        self._arm.connect(deadline_s)

    def state(self) -> ArmState:
        """Returns the newest report."""
        return self._arm.state()

    def stop(self) -> bool:
        """Stops the arm."""
        self._arm.stop(2.0)
        return True

    def close(self) -> None:
        """Frees nothing: the plant is the arm's."""


@dataclass(frozen=True)
class SimGripperOptions:
    """The simulated gripper.

    Attributes:
        timeout_s: of a motion, beyond what its length takes.
    """

    __pydantic_config__ = STRICT

    timeout_s: float = 3.0


class SimGripper:
    """A ``robot_bridge.contracts.Gripper`` on a plant's hand; it senses an object by the gap that is left."""

    def __init__(self, options: SimGripperOptions, arm: SimArm) -> None:
        self._options, self._arm = options, arm
        self._goal_m = MAX_WIDTH_M

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it has earned."""
        return frozenset({Capability.GRIPPER_WIDTH, Capability.GRIPPER_FORCE, Capability.GRIPPER_OBJECT_FLAG})

    @property
    def width_range_m(self) -> tuple[float, float]:
        """Smallest and largest opening [m]."""
        return 0.0, MAX_WIDTH_M

    def connect(self, deadline_s: float) -> None:
        """Looks whether the arm is there."""
        self._arm.plant.state()

    def activate(self, deadline_s: float) -> None:
        """Does nothing: it is always ready."""

    def move(self, width_m: float, speed_m_s: float, force_n: float, deadline_s: float) -> GripperState:
        """Moves the fingers and returns when they stand."""
        plant, until = self._arm.plant, time.monotonic() + deadline_s
        self._goal_m = min(max(width_m, 0.0), MAX_WIDTH_M)
        plant.grip(width_m, speed_m_s, force_n)
        while plant.state().gripper_moving:
            if time.monotonic() > until:
                raise RobotError(f"the fingers still move after {deadline_s:.1f} s; allow more time or more speed")
            time.sleep(_POLL_S)
        return self.state()

    def state(self) -> GripperState:
        """Returns the newest report."""
        truth = self._arm.plant.state()
        return GripperState(time.monotonic_ns(), truth.width_m, truth.gripper_moving, self._sensed(truth))

    def close(self) -> None:
        """Leaves the fingers as they are."""

    def _sensed(self, truth: PlantState) -> ObjectSensed:
        if truth.gripper_moving:
            return ObjectSensed.UNKNOWN
        return ObjectSensed.YES if truth.width_m > self._goal_m + _FULL_WIDTH_M else ObjectSensed.NO


@dataclass(frozen=True)
class PlantCameraOptions:
    """The camera that looks at a plant.

    Attributes:
        name: of the arm's plant.
        fps: frames in a second.
    """

    __pydantic_config__ = STRICT

    name: str = "sim"
    fps: float = 10.0

    def __post_init__(self) -> None:
        if not 0.5 <= self.fps <= 60.0:
            raise ConfigError(f"fps is {self.fps}, expected 0.5 to 60")


class PlantCamera:
    """A ``robot_bridge.contracts.Camera`` that renders a plant at a steady rate."""

    def __init__(self, options: PlantCameraOptions, plant: Plant | None = None) -> None:
        self._options, self._plant = options, plant
        self._news = threading.Condition()
        self._newest: Frame | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure = ""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Its settings never change, and time is exact."""
        return frozenset({Capability.CAMERA_LOCK, Capability.CAMERA_HARDWARE_TIME, Capability.SIMULATED})

    def start(self, deadline_s: float) -> None:
        """Starts to render and waits for the first frame."""
        plant = self._plant if self._plant is not None else _plants.get(self._options.name)
        if plant is None:
            raise RobotError(f"no simulated arm named {self._options.name!r} runs in this process; connect it first")
        self._thread = threading.Thread(target=self._run, args=(plant,), name="plant-camera", daemon=True)
        self._thread.start()
        self.latest(deadline_s)

    def latest(self, max_age_s: float, not_before_ns: int = 0) -> Frame:
        """Returns the newest frame that is new enough, waiting for it at most ``max_age_s``."""
        until = time.monotonic() + max_age_s
        with self._news:
            while True:
                frame, now_ns = self._newest, time.monotonic_ns()
                if self._failure:
                    raise StaleFrame(f"the simulated camera broke: {self._failure}")
                if frame and frame.t_capture_ns >= max(not_before_ns, now_ns - int(max_age_s * 1e9)):
                    return frame
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise StaleFrame(f"no frame that is new enough came within {max_age_s:.2f} s")
                self._news.wait(left_s)

    def lock_settings(self) -> Mapping[str, JsonValue]:
        """Returns the settings, which never change."""
        return {"fps": self._options.fps, "simulated": True}

    def stop(self) -> None:
        """Ends the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, plant: Plant) -> None:
        settings = hashlib.sha256(repr(self._options).encode()).hexdigest()[:16]
        due = time.monotonic()
        try:
            for sequence in count():
                captured_ns = time.monotonic_ns()
                rgb = plant.image()
                with self._news:
                    self._newest = Frame(rgb, captured_ns, time.monotonic_ns(), sequence, settings)
                    self._news.notify_all()
                due = max(due + 1.0 / self._options.fps, time.monotonic())
                if self._closing.wait(due - time.monotonic()):
                    return
        except RobotError as error:
            with self._news:
                self._failure = str(error)
                self._news.notify_all()


def _gripper(options: SimGripperOptions, arm: Arm) -> SimGripper:
    if not isinstance(arm, SimArm):
        raise ConfigError("the simulated gripper belongs to the simulated arm; set driver = 'sim' under [arm] as well")
    return SimGripper(options, arm)


ARM = ArmDriver(options=SimArmOptions, open=SimArm, open_stop_channel=SimStopChannel)
GRIPPER = GripperDriver(options=SimGripperOptions, open=_gripper)
CAMERA = CameraDriver(options=PlantCameraOptions, open=PlantCamera)
