"""The configuration of a cell: where the tool may go, where episodes start, when they end, what counts as a grasp."""

from dataclasses import dataclass, field

import numpy as np

from qtopt.config import STRICT, Reach
from qtopt.errors import ConfigError
from qtopt.specs import MAX_STEPS, STEP_XY_M, STEP_YAW_RAD, STEP_Z_M


@dataclass(frozen=True)
class MotionLimits:
    """Where the tool point may be and how far one action may move it; lengths in metres, angles in radians, base frame.

    Attributes:
        low_m: smallest x, y, z of the point between the finger tips.
        high_m: largest x, y, z.
        step_xy_m: largest displacement of one action along x and along y.
        step_z_m: largest displacement of one action along z.
        step_yaw_rad: largest change of azimuth of one action.
        yaw_rad: the azimuth stays within plus and minus this of home; beyond it the hand turns back by half a turn.
        home_yaw_rad: azimuth of home.
    """

    __pydantic_config__ = STRICT

    low_m: tuple[float, float, float] = (0.50, -0.10, 0.005)
    high_m: tuple[float, float, float] = (0.70, 0.10, 0.25)
    step_xy_m: float = STEP_XY_M
    step_z_m: float = STEP_Z_M
    step_yaw_rad: float = STEP_YAW_RAD
    yaw_rad: float = float(np.radians(150.0))
    home_yaw_rad: float = 0.0

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.low_m, self.high_m, strict=True)):
            raise ConfigError(f"workspace low_m {self.low_m} must lie below high_m {self.high_m} on every axis")
        if min(self.step_xy_m, self.step_z_m, self.step_yaw_rad) <= 0:
            raise ConfigError("step limits must be positive: step_xy_m, step_z_m, step_yaw_rad")
        if not self.yaw_rad >= np.pi / 2 + 1e-6:
            raise ConfigError(f"yaw_rad is {self.yaw_rad}, expected more than a quarter turn, so that any grasp exists")


@dataclass(frozen=True)
class CellConfig:
    """What ``GraspEnv`` needs to know about a cell; heights above the bin floor, in metres.

    Attributes:
        limits: where the tool may go.
        floor_z_m: height of the bin floor in the base frame.
        start_height_m: finger tips at the start of an episode, lowest and highest.
        clear_height_m: to where the closed fingers lift before the success check.
        lifted_height_m: only finger tips at least this high can hold an object up; ending lower is no success.
        empty_width_m: closed fingers nearer than this hold nothing.
        max_steps: actions in an episode at most.
        step_penalty: cost of every action that does not end the episode.
    """

    __pydantic_config__ = STRICT

    limits: MotionLimits = field(default_factory=MotionLimits)
    floor_z_m: float = 0.0
    start_height_m: tuple[float, float] = (0.16, 0.20)
    clear_height_m: float = 0.22
    lifted_height_m: float = 0.08
    empty_width_m: float = 0.003
    max_steps: int = MAX_STEPS
    step_penalty: float = 0.05

    @property
    def reach(self) -> Reach:
        """Where the tool may go and from where a grasp counts, heights above the floor."""
        (x, y, z), (u, v, w) = self.limits.low_m, self.limits.high_m
        return Reach((x, y, z - self.floor_z_m), (u, v, w - self.floor_z_m), self.lifted_height_m)

    def __post_init__(self) -> None:
        low, high = self.start_height_m
        top = self.limits.high_m[2] - self.floor_z_m
        if not 0.0 < low <= high <= top:
            raise ConfigError(f"start_height_m is {self.start_height_m}, expected two rising heights up to {top:.3f} m")
        if not self.lifted_height_m < self.clear_height_m <= top:
            raise ConfigError(
                f"clear_height_m is {self.clear_height_m}, expected above lifted_height_m {self.lifted_height_m} "
                f"and at most {top:.3f} m, the top of the workspace"
            )
        if self.max_steps < 1:
            raise ConfigError(f"max_steps is {self.max_steps}, expected at least 1")
        if self.step_penalty < 0:
            raise ConfigError(f"step_penalty is {self.step_penalty}, expected 0 or more (it is subtracted)")
