"""Options of a Universal Robots arm, and what its controller's variables mean in our vocabulary."""

import math
from dataclasses import dataclass
from typing import Literal

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from robot_bridge.contracts import ArmMode, ArmState
from robot_bridge.drivers.addresses import require_address
from robot_bridge.drivers.bounds import SPEED_M_S, TURN_RAD_S, require_within
from robot_bridge.drivers.rotvec import Six, from_rotvec_pose
from robot_bridge.drivers.rtde import Value

FIELDS = (
    "timestamp",
    "actual_TCP_pose",
    "actual_TCP_speed",
    "actual_TCP_force",
    "actual_q",
    "joint_temperatures",
    "target_speed_fraction",
    "robot_mode",
    "safety_mode",
    "runtime_state",
    "robot_status_bits",
    "safety_status_bits",
)
MOVING_M_S = 2e-3
MOVING_RAD_S = 0.01
_PROGRAM_RUNNING = 1 << 1
_MODES = {
    -1: ArmMode.OFFLINE, 0: ArmMode.OFFLINE, 1: ArmMode.OFFLINE, 2: ArmMode.OFF, 3: ArmMode.OFF, 4: ArmMode.OFF,
    5: ArmMode.IDLE, 6: ArmMode.MANUAL, 7: ArmMode.READY, 8: ArmMode.OFFLINE,
}  # fmt: skip
_NORMAL_OR_REDUCED = (1, 2)
_STOPS = {
    3: ArmMode.PROTECTIVE_STOP, 4: ArmMode.MANUAL, 5: ArmMode.SAFEGUARD_STOP, 6: ArmMode.EMERGENCY_STOP,
    7: ArmMode.EMERGENCY_STOP, 8: ArmMode.FAULT, 9: ArmMode.FAULT,
    12: ArmMode.SAFEGUARD_STOP, 13: ArmMode.SAFEGUARD_STOP, 14: ArmMode.SAFEGUARD_STOP,  # automatic mode, 3 positions
    15: ArmMode.EMERGENCY_STOP, 16: ArmMode.SAFEGUARD_STOP,  # of an injection moulding machine
    18: ArmMode.SAFEGUARD_STOP, 19: ArmMode.SAFEGUARD_STOP, 20: ArmMode.EMERGENCY_STOP,  # of PROFIsafe
    22: ArmMode.SAFEGUARD_STOP,  # of the safety API
}  # fmt: skip
"""By ``safety_mode``, as the ``SafetyMode`` of UR's client library counts them; any other stop is a fault."""
_STOP_BITS = {
    2: ArmMode.PROTECTIVE_STOP, 3: ArmMode.MANUAL, 4: ArmMode.SAFEGUARD_STOP, 5: ArmMode.EMERGENCY_STOP,
    6: ArmMode.EMERGENCY_STOP, 7: ArmMode.EMERGENCY_STOP, 8: ArmMode.FAULT, 9: ArmMode.FAULT,
}  # fmt: skip
_NORMAL_OR_REDUCED_BITS, _STOPPED_BIT = 0b11, 1 << 10
_WORST_FIRST = (
    ArmMode.FAULT, ArmMode.EMERGENCY_STOP, ArmMode.SAFEGUARD_STOP, ArmMode.MANUAL, ArmMode.PROTECTIVE_STOP,
)  # fmt: skip
"""The last is the only one that can be ended from here."""
_HINTS = {
    ArmMode.OFFLINE: "the controller is starting; wait for it",
    ArmMode.OFF: "switch the arm on at the pendant and release the brakes",
    ArmMode.IDLE: "release the brakes at the pendant",
    ArmMode.MANUAL: "end manual or recovery mode at the pendant",
    ArmMode.PROTECTIVE_STOP: "look why, then recover",
    ArmMode.SAFEGUARD_STOP: "close the safeguard and reset it, or hold the enabling switch in its middle position",
    ArmMode.EMERGENCY_STOP: "release the emergency stop, switch the arm on and release the brakes at the pendant",
    ArmMode.FAULT: "look at the pendant, and restart the safety system there",
}
_BOUNDS = {
    "frequency_hz": (10.0, 500.0),
    "tcp_offset_m": (-1.0, 1.0),
    "payload_kg": (0.0, 35.0),
    "payload_centre_m": (-1.0, 1.0),
    "turn_rad_s": TURN_RAD_S,
    "servo_speed_m_s": SPEED_M_S,
    "servo_accel_m_s2": (0.05, 2.0),
    "servo_turn_rad_s": TURN_RAD_S,
    "hold_decel_m_s2": (0.5, 10.0),
}


@dataclass(frozen=True)
class UrOptions:
    """A Universal Robots arm.

    Attributes:
        host: the controller's IPv4 address, in numbers.
        model: what it is; the e-Series measures forces, older ones estimate them.
        serial: its serial number; another arm at this address is refused. Empty for any.
        frequency_hz: of reports and of servo targets: 125, or up to 500 with an e-Series and a computer to match.
        tcp_offset_m: the point between the finger tips, seen from the flange.
        payload_kg: what the flange carries: gripper, mount and cable.
        payload_centre_m: its centre of mass, seen from the flange.
        watchdog_hz: the controller stops by itself when commands come less often. Nothing switches that off: it is what
            stops the arm when this computer dies.
        turn_rad_s: greatest rate of turning in a straight motion.
        servo_speed_m_s: greatest speed between the targets of ``servo``.
        servo_accel_m_s2: greatest acceleration.
        servo_turn_rad_s: greatest rate of turning.
        hold_decel_m_s2: how gently ``hold`` and a stream of targets that ran dry come to rest.
    """

    __pydantic_config__ = STRICT

    host: str
    model: Literal["ur3e", "ur5e", "ur7e", "ur10e", "ur12e", "ur16e", "ur20", "ur30", "ur3", "ur5", "ur10"] = "ur5e"
    serial: str = ""
    frequency_hz: float = 125.0
    tcp_offset_m: tuple[float, float, float] = (0.0, 0.0, 0.174)
    payload_kg: float = 1.1
    payload_centre_m: tuple[float, float, float] = (0.0, 0.0, 0.06)
    watchdog_hz: float = 10.0
    turn_rad_s: float = 0.8
    servo_speed_m_s: float = 0.25
    servo_accel_m_s2: float = 0.8
    servo_turn_rad_s: float = 0.8
    hold_decel_m_s2: float = 1.0

    def __post_init__(self) -> None:
        require_address(self.host)
        require_within(self, _BOUNDS)
        if not 1.0 <= self.watchdog_hz <= 60.0:
            raise ConfigError(f"watchdog_hz is {self.watchdog_hz}, expected 1 to 60; no cell file can switch it off")

    @property
    def measures_force(self) -> bool:
        """Whether there is a force sensor at the flange."""
        return self.model not in ("ur3", "ur5", "ur10")


def arm_mode(robot_mode: int, safety_mode: int, safety_bits: int) -> ArmMode:
    """Returns the mode of an arm that stands still; a stop of the safety system comes before everything else.

    It is told twice, as ``safety_mode`` and as ``safety_status_bits``, and the worse counts. A stop that neither names
    is a fault.
    """
    stops = {mode for bit, mode in _STOP_BITS.items() if safety_bits >> bit & 1}
    if safety_mode not in _NORMAL_OR_REDUCED:
        stops.add(_STOPS.get(safety_mode, ArmMode.FAULT))
    if not stops and (safety_bits & _STOPPED_BIT or not safety_bits & _NORMAL_OR_REDUCED_BITS):
        return ArmMode.FAULT
    return next((mode for mode in _WORST_FIRST if mode in stops), _MODES.get(robot_mode, ArmMode.FAULT))


def mode_hint(mode: ArmMode) -> str:
    """Returns what a person does about a mode in which the arm cannot move."""
    return _HINTS.get(mode, "look at the pendant")


def arm_state(t_host_ns: int, values: dict[str, Value]) -> ArmState:
    """Returns a report from the variables ``FIELDS``."""
    robot_mode, safety_mode = _int(values, "robot_mode"), _int(values, "safety_mode")
    twist = _six(values, "actual_TCP_speed")
    moving = math.hypot(*twist[:3]) > MOVING_M_S or math.hypot(*twist[3:]) > MOVING_RAD_S
    mode = arm_mode(robot_mode, safety_mode, _int(values, "safety_status_bits"))
    return ArmState(
        t_host_ns=t_host_ns,
        t_controller_s=_float(values, "timestamp"),
        pose=from_rotvec_pose(_six(values, "actual_TCP_pose")),
        twist=twist,
        wrench=_six(values, "actual_TCP_force"),
        joints_rad=_six(values, "actual_q"),
        mode=ArmMode.MOVING if mode is ArmMode.READY and moving else mode,
        program_running=bool(_int(values, "robot_status_bits") & _PROGRAM_RUNNING),
        speed_scale=_float(values, "target_speed_fraction"),
        joint_temperature_c=max(_six(values, "joint_temperatures")),
        codes={
            name: _int(values, name)
            for name in ("robot_mode", "safety_mode", "runtime_state", "robot_status_bits", "safety_status_bits")
        },
    )


def _int(values: dict[str, Value], name: str) -> int:
    value = values[name]
    return int(value) if not isinstance(value, tuple) else 0


def _float(values: dict[str, Value], name: str) -> float:
    value = values[name]
    return float(value) if not isinstance(value, tuple) else math.nan


def _six(values: dict[str, Value], name: str) -> Six:
    value = values[name]
    if not isinstance(value, tuple):
        return (math.nan,) * 6
    a, b, c, d, e, f = value
    return a, b, c, d, e, f
