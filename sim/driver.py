"""Driver number 0: the arm of a plant in this process, behind the contracts of every other driver.

What a physical driver promises is promised here with nothing in between, so that contract tests and the safety code
have a reference. The gripper (``driver_gripper``) and the camera (``driver_camera``) share the arm's plant.
"""

import contextlib
import threading
import time
from dataclasses import dataclass, field

from qtopt.config import STRICT
from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode, ArmState, Capability, MotionOutcome, MotionResult, Pose
from robot_bridge.displacement import tilt_rad, to_pose, to_tool
from robot_bridge.driver import ArmDriver
from sim.config import SimConfig
from sim.plant import Plant

_POLL_S = 0.004
_BEGIN_S = 0.05
_NEAR_M = 2e-3
_NEAR_RAD = 0.02
_MOST_TILT_RAD = 0.02
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
            pose=to_pose(truth.told),
            twist=truth.told_twist,
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
        tool = to_tool(target, plant.state().told.yaw_rad)
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
        gap = max(abs(a - b) for a, b in zip(truth.told.array()[:3], tool.array()[:3], strict=True))
        if gap > _NEAR_M or abs(truth.told.yaw_rad - tool.yaw_rad) > _NEAR_RAD:
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
            tool = to_tool(target, self.plant.state().told.yaw_rad)
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
        plant = self._plant  # also of an arm that was closed meanwhile: it stands there
        return MotionResult(outcome, reason, to_pose(plant.state().told) if plant is not None else None)


def plant_of(name: str) -> Plant:
    """Returns the plant that the arm of this name made. Raises RobotError where none is connected in this process."""
    if name not in _plants:
        raise RobotError(f"no simulated arm named {name!r} runs in this process; connect it first")
    return _plants[name]


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


ARM = ArmDriver(options=SimArmOptions, open=SimArm, open_stop_channel=SimStopChannel)
