"""The ``[arm]`` and ``[gripper]`` tables of a cell with a UFACTORY xArm."""

import math
from dataclasses import dataclass

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from robot_bridge.drivers.addresses import require_address
from robot_bridge.drivers.bounds import PORTS, SPEED_M_S, require_within
from robot_bridge.drivers.xarm_wire import CONTROL_PORT

Vector = tuple[float, float, float]
FENCE_MARGIN_M = 0.01
_BOUNDS = {
    "box_low_m": (-2.0, 2.0),
    "box_high_m": (-2.0, 2.0),
    "speed_limit_m_s": SPEED_M_S,
    "joint_speed_limit_rad_s": (0.05, math.pi),
    "collision_sensitivity": (1.0, 5.0),
    "tcp_offset_m": (-1.0, 1.0),
    "control_port": PORTS,
}


@dataclass(frozen=True)
class XArmOptions:
    """A UFACTORY arm.

    Attributes:
        host: the controller's IPv4 address, in numbers.
        serial: the arm's serial number; another arm at this address is refused. Empty for any.
        box_low_m: smallest x, y, z of the tool point, base frame. A target outside is refused; the controller's own
            fence stands one centimetre further out.
        box_high_m: largest x, y, z.
        speed_limit_m_s: of the tool, set in the controller's reduced mode; a faster motion is refused.
        joint_speed_limit_rad_s: the same for joints.
        collision_sensitivity: 1 (dull) to 5 (jumpy), as in UFACTORY Studio; 0, which is off, is refused.
        tcp_offset_m: from the flange to the tool point, as it must stand in the controller, which may not turn it.
        control_port: where the controller takes commands; another than 502 only for a simulated one.
    """

    __pydantic_config__ = STRICT

    host: str
    box_low_m: Vector
    box_high_m: Vector
    speed_limit_m_s: float = 0.25
    joint_speed_limit_rad_s: float = 0.8
    collision_sensitivity: int = 3
    tcp_offset_m: Vector = (0.0, 0.0, 0.172)
    control_port: int = CONTROL_PORT
    serial: str = ""

    def __post_init__(self) -> None:
        require_address(self.host)
        require_within(self, _BOUNDS)
        if not all(low < high for low, high in zip(self.box_low_m, self.box_high_m, strict=True)):
            raise ConfigError(f"arm box_low_m {self.box_low_m} must lie below box_high_m {self.box_high_m} everywhere")

    def fence_mm(self) -> tuple[int, ...]:
        """Returns the controller's fence: x high, x low, y high, y low, z high, z low, whole millimetres."""
        fence: list[int] = []
        for low, high in zip(self.box_low_m, self.box_high_m, strict=True):
            fence += [
                math.ceil((high + FENCE_MARGIN_M) * 1000 - 1e-6),
                math.floor((low - FENCE_MARGIN_M) * 1000 + 1e-6),
            ]
        return tuple(fence)


@dataclass(frozen=True)
class XArmGripperOptions:
    """The xArm gripper (first generation, serial bus of the tool).

    Attributes:
        full_width_m: the opening at 850 pulses; at 0 it is closed.
    """

    __pydantic_config__ = STRICT

    full_width_m: float = 0.085

    def __post_init__(self) -> None:
        require_within(self, {"full_width_m": (0.02, 0.2)})
