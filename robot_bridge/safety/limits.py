"""The numbers of the safety layer, each with the bounds that no cell file can move.

A cell file may make its cell slower, gentler and more watchful than these defaults, and bolder up to the bounds given
here, which are code on purpose.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qtopt.config import STRICT
from qtopt.errors import ConfigError

OVERSPEED_FACTOR = 1.2
"""How far above the limit a measured speed may lie ..."""
OVERSPEED_S = 0.05
"""... and for how long, before the arm is stopped."""
BOX_TOLERANCE_M = 0.010
"""How far beyond the hard box the tool may be measured before motion is locked."""
TILT_RAD = math.radians(10.0)
"""How far from straight down a commanded tool may point."""
TRANSIT_YAW_RAD = math.pi / 2
"""No single motion turns the tool by more: the way round would be the controller's choice."""

Bounds = Mapping[str, tuple[float, float]]


def check_bounds(values: Any, bounds: Bounds, table: str) -> None:
    """Raises ConfigError where an attribute lies outside its bounds, or is not a number."""
    for name, (low, high) in bounds.items():
        value = getattr(values, name)
        if not low <= value <= high:
            raise ConfigError(
                f"[{table}] {name} is {value}; this program allows {low:g} to {high:g}, and no cell file can widen that"
            )


@dataclass(frozen=True)
class BinGeometry:
    """The bin in the base frame; lengths in metres.

    Attributes:
        floor_z_m: height of its floor.
        inner_min_m: smallest x, y between its walls.
        inner_max_m: largest x, y.
        rim_z_m: height of its rim.
        around_m: how far beyond its walls the tool may go, high above the rim.
        above_m: how high above the rim the tool may go.
    """

    __pydantic_config__ = STRICT

    floor_z_m: float
    inner_min_m: tuple[float, float]
    inner_max_m: tuple[float, float]
    rim_z_m: float
    around_m: float = 0.25
    above_m: float = 0.40

    def __post_init__(self) -> None:
        check_bounds(self, {"floor_z_m": (-2.0, 2.0), "around_m": (0.0, 1.0), "above_m": (0.1, 1.0)}, "bin")
        for axis, low, high in zip("xy", self.inner_min_m, self.inner_max_m, strict=True):
            if not (low >= -3.0 and high <= 3.0 and high - low >= 0.06):
                raise ConfigError(
                    f"[bin] reaches from {low} to {high} m along {axis}; expected inner_min_m below inner_max_m, at "
                    "least 0.06 m apart and within 3 m of the base: are the values in metres?"
                )
        if not 0.0 < self.rim_z_m - self.floor_z_m <= 0.5:
            raise ConfigError(
                f"[bin] rim_z_m is {self.rim_z_m}, expected above floor_z_m {self.floor_z_m} by at most 0.5 m"
            )


@dataclass(frozen=True)
class SafetyLimits:
    """How the tool may move.

    Attributes:
        speed_m_s: largest speed of the tool point.
        slow_speed_m_s: the same while the cell is new, and near the floor.
        slow_episodes: a cell is new for this many episodes after any change of its file; fewer than 20 only where
            nothing can be broken.
        slow_height_m: what counts as near the floor.
        accel_m_s2: largest acceleration commanded.
        stop_decel_m_s2: how hard a stop brakes.
        yaw_rate_rad_s: largest rate of turn.
        step_m: largest displacement of one action along each axis.
        step_yaw_rad: largest change of azimuth of one action.
        yaw_rad: the azimuth stays within plus and minus this of home.
        wall_m: distance kept from the bin's walls, the fingers' half width.
        floor_soft_m: commands are kept so far above the floor.
        floor_hard_m: below this the tool point never goes.
        rim_clear_m: beside the bin the tool stays so far above its rim.
        joint_temperature_c: hotter joints pause the arm.
        speed_scale_min: an operator's slider below this pauses it, too.
    """

    __pydantic_config__ = STRICT

    speed_m_s: float = 0.25
    slow_speed_m_s: float = 0.05
    slow_episodes: int = 20
    slow_height_m: float = 0.030
    accel_m_s2: float = 0.8
    stop_decel_m_s2: float = 2.0
    yaw_rate_rad_s: float = 0.8
    step_m: float = 0.05
    step_yaw_rad: float = 0.35
    yaw_rad: float = math.radians(150.0)
    wall_m: float = 0.020
    floor_soft_m: float = 0.008
    floor_hard_m: float = 0.003
    rim_clear_m: float = 0.050
    joint_temperature_c: float = 70.0
    speed_scale_min: float = 0.20

    def __post_init__(self) -> None:
        check_bounds(self, LIMIT_BOUNDS, "limits")
        if self.slow_speed_m_s > self.speed_m_s:
            raise ConfigError(f"[limits] slow_speed_m_s is {self.slow_speed_m_s}, above speed_m_s {self.speed_m_s}")
        if self.floor_hard_m > self.floor_soft_m:
            raise ConfigError(f"[limits] floor_hard_m is {self.floor_hard_m}, above floor_soft_m {self.floor_soft_m}")


LIMIT_BOUNDS: Bounds = {
    "speed_m_s": (0.005, 0.5),
    "slow_speed_m_s": (0.005, 0.10),
    "slow_episodes": (0, 1000),
    "slow_height_m": (0.02, 0.5),
    "accel_m_s2": (0.05, 2.0),
    "stop_decel_m_s2": (0.5, 10.0),
    "yaw_rate_rad_s": (0.05, 1.6),
    "step_m": (0.005, 0.10),
    "step_yaw_rad": (0.05, math.pi / 2 + 1e-3),
    "yaw_rad": (math.pi / 2 + 1e-6, math.radians(170.0)),
    "wall_m": (0.005, 0.5),
    "floor_soft_m": (0.003, 0.2),
    "floor_hard_m": (0.002, 0.2),
    "rim_clear_m": (0.03, 0.3),
    "joint_temperature_c": (30.0, 80.0),
    "speed_scale_min": (0.05, 1.0),
}


@dataclass(frozen=True)
class ContactLimits:
    """When what presses on the tool ends a motion.

    Attributes:
        descend_n: vertical force that ends a descent [N].
        aside_n: horizontal force that ends a motion of an episode which does not lead up [N]; None for half way between
            ``descend_n`` and ``retract_n``.
        retract_n: force in any direction that sends the tool up [N].
        latch_n: force in any direction that locks motion [N].
        retract_m: how far up.
    """

    __pydantic_config__ = STRICT

    descend_n: float = 15.0
    retract_n: float = 30.0
    latch_n: float = 60.0
    retract_m: float = 0.030
    aside_n: float | None = None

    def __post_init__(self) -> None:
        bounds = {"descend_n": (1.0, 40.0), "retract_n": (1.0, 60.0), "latch_n": (1.0, 100.0), "retract_m": (0.0, 0.1)}
        check_bounds(self, bounds, "contact")
        if not self.descend_n <= self.press_n < self.retract_n < self.latch_n:
            aside = "" if self.aside_n is None else f"aside_n {self.aside_n}, "
            values = f"descend_n {self.descend_n}, {aside}retract_n {self.retract_n}, latch_n {self.latch_n}"
            raise ConfigError(f"[contact] {values} must rise")

    @property
    def press_n(self) -> float:
        """The horizontal force that ends a motion [N]."""
        return (self.descend_n + self.retract_n) / 2 if self.aside_n is None else self.aside_n


@dataclass(frozen=True)
class WatchdogLimits:
    """How long [s] silence is borne, and from whom.

    Attributes:
        period_s: of the controller's reports; slow ones get three and six periods before ``hold`` and ``stop``.
        hold_s: age of the controller's clock at which the arm holds.
        stop_s: at which it stops.
        latch_s: at which motion is locked.
        collector_hold_s: silence of the collector at which the arm holds.
        collector_stop_s: at which it stops.
        policy_hold_s: lateness of an action at which the arm holds.
        policy_home_s: at which the episode is over.
        arm_latch_s: silence of the arm's process at which the safety process stops the arm and locks motion.
        camera_warn_s: age of a picture that is worth a warning.
        camera_hold_s: that holds the arm.
        camera_stop_s: that aborts the episode.
    """

    __pydantic_config__ = STRICT

    period_s: float = 0.01
    hold_s: float = 0.10
    stop_s: float = 0.25
    latch_s: float = 1.0
    collector_hold_s: float = 0.5
    collector_stop_s: float = 5.0
    policy_hold_s: float = 1.0
    policy_home_s: float = 30.0
    arm_latch_s: float = 0.2
    camera_warn_s: float = 0.15
    camera_hold_s: float = 0.5
    camera_stop_s: float = 2.0

    def __post_init__(self) -> None:
        check_bounds(self, WATCHDOG_BOUNDS, "watchdog")
        rising = (
            ("hold_s", "stop_s", "latch_s"),
            ("collector_hold_s", "collector_stop_s"),
            ("policy_hold_s", "policy_home_s"),
            ("camera_warn_s", "camera_hold_s", "camera_stop_s"),
        )
        for names in rising:
            values = [getattr(self, name) for name in names]
            if values != sorted(values):
                raise ConfigError(f"[watchdog] {', '.join(names)} are {values}, expected rising values")
        if self.hold_after_s > self.latch_s or self.stop_after_s > self.latch_s:
            raise ConfigError(
                f"[watchdog] period_s is {self.period_s}: six periods must fit into latch_s {self.latch_s}"
            )

    @property
    def hold_after_s(self) -> float:
        """Age of the controller's clock at which the arm holds."""
        return max(self.hold_s, 3 * self.period_s)

    @property
    def stop_after_s(self) -> float:
        """Age at which it stops."""
        return max(self.stop_s, 6 * self.period_s)


WATCHDOG_BOUNDS: Bounds = {
    "period_s": (0.0005, 0.2),
    "hold_s": (0.02, 0.5),
    "stop_s": (0.05, 1.0),
    "latch_s": (0.2, 2.0),
    "collector_hold_s": (0.1, 2.0),
    "collector_stop_s": (0.5, 30.0),
    "policy_hold_s": (0.1, 2.0),
    "policy_home_s": (1.0, 600.0),
    "arm_latch_s": (0.02, 0.3),
    "camera_warn_s": (0.02, 1.0),
    "camera_hold_s": (0.1, 2.0),
    "camera_stop_s": (0.5, 10.0),
}


@dataclass(frozen=True)
class RecoveryLimits:
    """Whether a protective stop may be cleared without a person, and how carefully.

    Attributes:
        auto_recover: False: every protective stop, reflex or collision waits for a person.
        per_hour: as many may be cleared in an hour.
        wait_s: so long after the stop at the earliest.
        force_n: only while less than this presses on the tool.
        same_place_m: a second stop so near to an earlier one of that hour waits for a person.
        rise_m: the first motion afterwards: straight up by this ...
        rise_speed_m_s: ... so slowly.
    """

    __pydantic_config__ = STRICT

    auto_recover: bool = False
    per_hour: int = 3
    wait_s: float = 6.0
    force_n: float = 10.0
    same_place_m: float = 0.050
    rise_m: float = 0.030
    rise_speed_m_s: float = 0.020

    def __post_init__(self) -> None:
        bounds = {
            "per_hour": (0, 3),
            "wait_s": (6.0, 600.0),
            "force_n": (0.0, 10.0),
            "same_place_m": (0.02, 1.0),
            "rise_m": (0.0, 0.1),
            "rise_speed_m_s": (0.001, 0.05),
        }
        check_bounds(self, bounds, "recovery")
