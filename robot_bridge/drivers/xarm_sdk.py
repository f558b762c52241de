"""Opening UFACTORY's Python library so that it leaves the rest of the process alone, and its return codes in words."""

import socket
import time
import types
from typing import Any

from qtopt.errors import RobotError
from robot_bridge.drivers.xarm_options import XArmOptions
from robot_bridge.drivers.xarm_wire import error_words

COMMAND_TIMEOUT_S = 0.5
HIDES_TOOL = range(1, 18)
"""While the controller has one of these errors, an emergency stop say, the library tells no tool offset."""
_TCP_TOLERANCE_MM, _TCP_TOLERANCE_RAD = 0.5, 0.01
_SETTINGS_S = 1.0
_CODES = {
    -9: "the arm is stopped",
    -8: "out of range",
    -7: "a joint beyond its limit",
    -6: "the tool beyond its limit",
    -3: "the vendor's library failed",
    -2: "not ready: motors off, or stopped",
    -1: "not connected",
    1: "the controller has an error",
    2: "the controller has a warning",
    3: "no answer in time",
    4: "an answer of the wrong length",
    5: "an answer to another command",
    6: "an answer in another protocol",
    7: "an answer of another function",
    8: "the connection broke",
    9: "not ready to move",
    10: "refused",
    12: "a wrong parameter",
    20: "no tool electronics at the tool's bus",
    22: "the tool's bus runs at another baud rate",
    23: "an answer of the wrong length from the tool",
    100: "it did not end in time",
    101: "no answer from the gripper",
    102: "the gripper has an error",
    103: "the gripper is off",
}


def code_words(code: int) -> str:
    """Returns a return code of the library in words."""
    return f"{_CODES.get(code, 'see the code list of the xArm library')} (code {code})"


def checked(code: Any, what: str) -> None:
    """Raises RobotError unless a call went well; some calls of the library return a list that starts with the code."""
    number = int(code[0]) if isinstance(code, (list, tuple)) else int(code)
    if number not in (0, 1, 2):  # an error or a warning that was there before does not spoil a setting
        raise RobotError(f"the xArm controller refused {what}: {code_words(number)}")


def open_sdk(options: XArmOptions, deadline_s: float) -> Any:
    """Connects the vendor's library, waits for its first report, and returns its ``XArmAPI``.

    The library would prefer a socket file that anybody can create in the temporary directory, which is forbidden here.
    Nothing else is asked of the controller.
    """
    from xarm.core.config.x_config import XCONF
    from xarm.wrapper import XArmAPI

    keep_default_timeout()
    until_s = time.monotonic() + deadline_s
    XCONF.SocketConf.TCP_CONTROL_PORT = options.control_port
    try:
        sdk = XArmAPI(options.host, is_radian=True, do_not_open=True, forbid_uds=True)
        sdk.connect()
    except Exception as error:  # the library raises bare Exceptions
        raise RobotError(f"the xArm library did not connect to {options.host}: {error}") from error
    sdk.set_timeout(COMMAND_TIMEOUT_S)
    while sdk.count < 0:
        if time.monotonic() > until_s:
            sdk.disconnect()
            raise RobotError(f"no report of {options.host} in {deadline_s:.1f} s: restart the controller")
        time.sleep(0.02)
    return sdk


def keep_default_timeout() -> None:
    """Hides ``setdefaulttimeout`` from the library: its threads set the whole process's with each reconnection."""
    from xarm.core.comm import socket_port

    sockets = types.ModuleType(socket.__name__)
    vars(sockets).update(vars(socket), setdefaulttimeout=lambda _: None)
    socket_port.socket = sockets


def apply_limits(sdk: Any, options: XArmOptions) -> None:
    """Sets speeds, boundary and fence in the controller and reads them back. Raises RobotError where they differ."""
    speed_mm_s = options.speed_limit_m_s * 1000
    checked(sdk.set_reduced_max_tcp_speed(speed_mm_s), "the speed limit")
    checked(sdk.set_reduced_max_joint_speed(options.joint_speed_limit_rad_s, is_radian=True), "the joint speed limit")
    checked(sdk.set_reduced_tcp_boundary(list(options.fence_mm())), "the boundary")
    checked(sdk.set_reduced_mode(on=True), "the reduced mode")
    checked(sdk.set_fence_mode(on=True), "the fence")
    check_limits(sdk, options)


def check_limits(sdk: Any, options: XArmOptions) -> None:
    """Raises RobotError unless the controller holds the limits of the options."""
    code, states = sdk.get_reduced_states(is_radian=True)
    checked(code, "to tell its limits")
    found = {
        "reduced mode": bool(states[0]),
        "boundary [mm]": tuple(states[1]),
        "speed [mm/s]": round(float(states[2]), 2),
        "joint speed [rad/s]": round(float(states[3]), 4),
        "fence": bool(states[5]),
    }
    expected = {
        "reduced mode": True,
        "boundary [mm]": options.fence_mm(),
        "speed [mm/s]": round(options.speed_limit_m_s * 1000, 2),
        "joint speed [rad/s]": round(options.joint_speed_limit_rad_s, 4),
        "fence": True,
    }
    for name, value in expected.items():
        if found[name] != value:
            raise RobotError(
                f"the xArm controller's {name} is {found[name]}, expected {value}: did somebody change it?"
            )


def check_settings(sdk: Any, options: XArmOptions) -> None:
    """Raises RobotError unless tool offset and collision sensitivity are those of the options, within a second.

    The offset may not turn the tool: our tool point is never turned against the flange. Until the first report the
    library tells zeros.
    """
    expected = [1000 * value for value in options.tcp_offset_m]
    until_s = time.monotonic() + _SETTINGS_S
    while True:
        found = [float(value) for value in sdk.tcp_offset]
        fits = all(abs(a - b) <= _TCP_TOLERANCE_MM for a, b in zip(found[:3], expected, strict=True))
        fits = fits and all(abs(turn) <= _TCP_TOLERANCE_RAD for turn in found[3:6])
        if fits and sdk.collision_sensitivity == options.collision_sensitivity:
            return
        if time.monotonic() > until_s:
            break
        time.sleep(0.02)
    if not fits:
        raise RobotError(
            f"the controller's tool offset is {found[:3]} mm turned by {found[3:]} rad, the cell file's {expected} mm "
            "not turned: measure the tool, and set whichever is wrong"
        )
    raise RobotError(
        f"the controller's collision sensitivity reads {sdk.collision_sensitivity}, expected "
        f"{options.collision_sensitivity}"
    )


def why_not(error: int, code: int) -> str:
    """Returns why a command was not carried out: the controller's error where there is one."""
    return error_words(error) if error else code_words(code)
