"""Settings of an SO-101 and its calibration: what each servo's steps mean."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qtopt.config import STRICT, from_plain
from qtopt.errors import ConfigError
from robot_bridge.drivers.bounds import TURN_RAD_S, require_within
from robot_bridge.drivers.feetech import STEPS_PER_TURN
from robot_bridge.drivers.so101_geometry import Geometry, Joints

JOINT_NAMES: Final = ("pan", "lift", "elbow", "flex", "roll")
SPEED_CAP_M_S: Final = 0.10
STEPS_PER_RAD: Final = STEPS_PER_TURN / (2 * math.pi)
_IDS, _STEPS = (1, 253), (0, STEPS_PER_TURN - 1)
_JOINT_BOUNDS: Final = {"servo": _IDS, "zero_steps": _STEPS, "low_steps": _STEPS, "high_steps": _STEPS}
_JAW_BOUNDS: Final = {"servo": _IDS, "closed_steps": _STEPS, "open_steps": _STEPS, "open_width_m": (0.01, 0.2)}
_BOUNDS: Final = {
    "baud_hz": (38_400, 1_000_000),
    "torque_limit": (0.05, 1.0),
    "gripper_torque_limit": (0.05, 1.0),
    "yaw_rate_rad_s": TURN_RAD_S,
    "joint_speed_rad_s": (0.05, 3.0),
    "follow_error_rad": (0.05, 1.0),
}


@dataclass(frozen=True)
class JointCalibration:
    """One joint: ``angle = direction * (steps - zero_steps)``, and the steps between which it may be."""

    __pydantic_config__ = STRICT

    servo: int
    zero_steps: int
    direction: int
    low_steps: int
    high_steps: int

    def __post_init__(self) -> None:
        if self.direction not in (-1, 1):
            raise ConfigError(f"direction is {self.direction}, expected 1 or -1")
        require_within(self, _JOINT_BOUNDS)
        if not self.low_steps < self.high_steps:
            raise ConfigError(f"low_steps is {self.low_steps}, expected below high_steps, {self.high_steps}")

    def angle_rad(self, steps: int) -> float:
        """Returns the joint's angle in the model [rad]."""
        return self.direction * (steps - self.zero_steps) / STEPS_PER_RAD

    def steps(self, angle_rad: float) -> int | None:
        """Returns the servo's steps for an angle; None beyond the joint's limits."""
        steps = self.zero_steps + self.direction * round(angle_rad * STEPS_PER_RAD)
        return steps if self.low_steps <= steps <= self.high_steps else None


@dataclass(frozen=True)
class JawCalibration:
    """The gripper: steps with the jaws closed on nothing and wide open, and how wide that is at the tips [m]."""

    __pydantic_config__ = STRICT

    servo: int
    closed_steps: int
    open_steps: int
    open_width_m: float

    def __post_init__(self) -> None:
        require_within(self, _JAW_BOUNDS)
        if abs(self.open_steps - self.closed_steps) < 100:
            raise ConfigError("closed_steps and open_steps are less than 100 apart; calibrate the gripper again")

    def width_m(self, steps: int) -> float:
        """Returns the opening [m], taken as proportional to the jaw's angle."""
        return self.open_width_m * (steps - self.closed_steps) / (self.open_steps - self.closed_steps)

    def steps(self, width_m: float) -> int:
        """Returns the steps of an opening, which is first brought into the range."""
        part = min(1.0, max(0.0, width_m / self.open_width_m))
        return round(self.closed_steps + part * (self.open_steps - self.closed_steps))


@dataclass(frozen=True)
class Calibration:
    """What is in the calibration file: the five joints and the gripper."""

    __pydantic_config__ = STRICT

    pan: JointCalibration
    lift: JointCalibration
    elbow: JointCalibration
    flex: JointCalibration
    roll: JointCalibration
    gripper: JawCalibration

    def __post_init__(self) -> None:
        servos = self.servos
        if len(set(servos)) != 6:
            raise ConfigError(f"servo ids are {servos}, expected six different ones")

    @property
    def joints(self) -> tuple[JointCalibration, ...]:
        """The five joints from the base on."""
        return self.pan, self.lift, self.elbow, self.flex, self.roll

    @property
    def servos(self) -> tuple[int, ...]:
        """The ids of the five joints' servos and the gripper's."""
        return (*(joint.servo for joint in self.joints), self.gripper.servo)

    def angles_rad(self, steps: tuple[int, ...]) -> Joints:
        """Returns the model's joints for the first five of ``steps``."""
        pan, lift, elbow, flex, roll = (joint.angle_rad(at) for joint, at in zip(self.joints, steps[:5], strict=True))
        return pan, lift, elbow, flex, roll

    def steps(self, angles_rad: Joints) -> tuple[int, ...] | None:
        """Returns the five servos' steps; None where a joint would be beyond its limits."""
        found = [joint.steps(angle) for joint, angle in zip(self.joints, angles_rad, strict=True)]
        steps = tuple(at for at in found if at is not None)
        return steps if len(steps) == 5 else None


@dataclass(frozen=True)
class So101Options:
    """An SO-101 (or SO-100 with its own lengths) on a serial port.

    Attributes:
        port: the servo board, as ``/dev/serial/by-id/...``.
        calibration_file: JSON, see docs/drivers-so101.md.
        baud_hz: of the bus.
        torque_limit: of the five joints, part of their strength.
        gripper_torque_limit: of the gripper.
        geometry: lengths of the arm.
        yaw_rate_rad_s: how fast the tool turns at most.
        joint_speed_rad_s: how fast a joint turns at most, also told to the servos.
        follow_error_rad: a joint so far behind its goal is taken for blocked.
    """

    __pydantic_config__ = STRICT

    port: str
    calibration_file: Path
    baud_hz: int = 1_000_000
    torque_limit: float = 0.6
    gripper_torque_limit: float = 0.4
    geometry: Geometry = field(default_factory=Geometry)
    yaw_rate_rad_s: float = 0.8
    joint_speed_rad_s: float = 2.0
    follow_error_rad: float = 0.25

    def __post_init__(self) -> None:
        require_within(self, _BOUNDS)


def load_calibration(path: Path) -> Calibration:
    """Reads a calibration file; raises ConfigError that says how to make one."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"calibration file {path} cannot be read: {error}; docs/drivers-so101.md says how to make one"
        ) from error
    return from_plain(Calibration, values, str(path))
