"""The gripper of driver number 0: the hand of the simulated arm's plant."""

import time
from dataclasses import dataclass

from qtopt.config import STRICT
from qtopt.errors import ConfigError, RobotError
from robot_bridge.contracts import Arm, Capability, GripperState, ObjectSensed
from robot_bridge.driver import GripperDriver
from sim.driver import SimArm
from sim.hand import MAX_WIDTH_M
from sim.plant import PlantState

_POLL_S = 0.004
_FULL_WIDTH_M = 0.003


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


def _gripper(options: SimGripperOptions, arm: Arm) -> SimGripper:
    if not isinstance(arm, SimArm):
        raise ConfigError("the simulated gripper belongs to the simulated arm; set driver = 'sim' under [arm] as well")
    return SimGripper(options, arm)


GRIPPER = GripperDriver(options=SimGripperOptions, open=_gripper)
