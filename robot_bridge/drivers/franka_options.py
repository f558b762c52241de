"""Settings of a Franka arm."""

import math
from dataclasses import dataclass

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from robot_bridge.drivers.addresses import require_address
from robot_bridge.drivers.bounds import SPEED_M_S, TURN_RAD_S, require_within

_BOUNDS = {
    "flange_to_tip_m": (0.02, 0.5),
    "flange_to_tip_rad": (-math.pi, math.pi),
    "collision_force_n": (5.0, 40.0),
    "collision_torque_nm": (5.0, 40.0),
    "speed_limit_m_s": SPEED_M_S,
    "yaw_rate_rad_s": TURN_RAD_S,
}


@dataclass(frozen=True)
class FrankaOptions:
    """A Franka arm with its FCI activated.

    Attributes:
        host: IPv4 address of the control cabinet, in numbers.
        realtime: demand a real-time kernel; without it hardware stops at the first late packets.
        flange_to_tip_m: flange to the point between the finger tips, along the flange's z, as set in Desk; 0.1034 for
            the Franka Hand.
        flange_to_tip_rad: how far the hand is turned about that axis, as set in Desk; -45 degrees for the Franka Hand.
        collision_force_n: the controller's reflex, per axis of the tool.
        collision_torque_nm: the controller's reflex, per joint.
        contact_force_n: estimated force along an axis of the base at which a straight motion ends.
        speed_limit_m_s: no motion is faster.
        yaw_rate_rad_s: the tool turns no faster.
    """

    __pydantic_config__ = STRICT

    host: str
    realtime: bool = True
    flange_to_tip_m: float = 0.1034
    flange_to_tip_rad: float = -math.pi / 4
    collision_force_n: float = 30.0
    collision_torque_nm: float = 30.0
    contact_force_n: float = 15.0
    speed_limit_m_s: float = 0.25
    yaw_rate_rad_s: float = 0.8

    def __post_init__(self) -> None:
        require_address(self.host)
        require_within(self, _BOUNDS)
        if not 2.0 <= self.contact_force_n < self.collision_force_n:
            raise ConfigError(
                f"contact_force_n is {self.contact_force_n}, expected from 2 to below collision_force_n "
                f"{self.collision_force_n}: the soft stop must come before the reflex"
            )
