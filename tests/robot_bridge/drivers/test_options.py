"""Every number in a driver's table of the cell file: what is none, has no end or another unit is refused, and named."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from qtopt.errors import ConfigError
from robot_bridge.cell_file import build_options
from robot_bridge.drivers.franka_gripper import FrankaGripperOptions
from robot_bridge.drivers.franka_options import FrankaOptions
from robot_bridge.drivers.realsense import RealSenseOptions
from robot_bridge.drivers.robotiq import Calibration, RtuOptions, SocketOptions
from robot_bridge.drivers.so101_geometry import Geometry
from robot_bridge.drivers.so101_gripper import So101GripperOptions
from robot_bridge.drivers.so101_options import JawCalibration, JointCalibration, So101Options
from robot_bridge.drivers.ur_state import UrOptions
from robot_bridge.drivers.uvc import UvcOptions
from robot_bridge.drivers.xarm_options import XArmGripperOptions, XArmOptions

HOST = "192.168.1.10"
PICTURE = {"size": (640, 480), "crop": (0, 0, 480, 480), "exposure": 156.0, "white_balance_k": 4600.0}
GOOD: dict[str, Any] = {
    "ur": UrOptions(HOST),
    "franka": FrankaOptions(HOST),
    "franka-hand": FrankaGripperOptions(),
    "xarm": XArmOptions(HOST, (0.3, -0.2, 0.01), (0.6, 0.2, 0.4)),
    "xarm gripper": XArmGripperOptions(),
    "so101": So101Options("/dev/null", Path("so101.json")),
    "so101 geometry": Geometry(),
    "so101 joint": JointCalibration(servo=1, zero_steps=2048, direction=1, low_steps=800, high_steps=3300),
    "so101 jaw": JawCalibration(servo=6, closed_steps=1500, open_steps=2700, open_width_m=0.08),
    "so101 gripper": So101GripperOptions(),
    "robotiq": Calibration(closed_width_m=0.001),
    "robotiq-ur-socket": SocketOptions(HOST),
    "robotiq-rtu": RtuOptions("/dev/null"),
    "uvc": UvcOptions(device="0", fps=30.0, focus=30.0, **PICTURE),
    "mjpeg": UvcOptions(url="http://127.0.0.1/stream", size=(640, 480), crop=(0, 0, 480, 480)),
    "realsense": RealSenseOptions(**PICTURE),
}


def numbers(options: Any):
    """Yields the name and the value of each number, or tuple of them, that a table has."""
    for each in dataclasses.fields(options):
        value = getattr(options, each.name)
        first = value[0] if isinstance(value, tuple) else value
        if isinstance(first, int | float) and not isinstance(first, bool):
            yield each.name, value


def spoilt(value: Any, how: Any):
    """Yields the value with one number after the other made wrong."""
    if not isinstance(value, tuple):
        yield how(value)
        return
    for index, number in enumerate(value):
        if how(number) != number:
            yield (*value[:index], how(number), *value[index + 1 :])


WRONG = {
    "nan": lambda number: math.nan,
    "inf": lambda number: math.inf,
    "-inf": lambda number: -math.inf,
    "a thousandfold": lambda number: 1000 * number,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    ("driver", "name"), [(driver, name) for driver, options in GOOD.items() for name, _ in numbers(options)]
)
def test_a_number_that_cannot_be_meant_is_refused(driver: str, name: str, wrong: str):
    good = GOOD[driver]
    for bad in spoilt(getattr(good, name), WRONG[wrong]):
        with pytest.raises(ConfigError, match=rf"{name}.* (is|are) .*expected"):
            dataclasses.replace(good, **{name: bad})


@pytest.mark.parametrize(
    ("driver", "name", "ends", "beyond"),
    [
        ("ur", "turn_rad_s", (0.05, 1.6), (0.0, 1.61, 45.0)),
        ("ur", "servo_turn_rad_s", (0.05, 1.6), (0.0, 1.61)),
        ("ur", "servo_speed_m_s", (0.005, 0.5), (0.0, -0.1, 0.51)),
        ("ur", "servo_accel_m_s2", (0.05, 2.0), (0.0, 2.1)),
        ("ur", "hold_decel_m_s2", (0.5, 10.0), (0.0, 1e-6, 10.1)),
        ("ur", "watchdog_hz", (1.0, 60.0), (0.0, 61.0)),
        ("franka", "yaw_rate_rad_s", (0.05, 1.6), (0.0, 1.61)),
        ("franka", "flange_to_tip_m", (0.02, 0.5), (0.0, 0.51, -0.1034)),
        ("franka", "flange_to_tip_rad", (-math.pi, math.pi), (-45.0,)),
        ("franka", "speed_limit_m_s", (0.005, 0.5), (0.0, 0.51)),
        ("xarm", "speed_limit_m_s", (0.005, 0.5), (0.0, 0.51)),
        ("xarm", "joint_speed_limit_rad_s", (0.05, math.pi), (0.0, 45.0)),
        ("so101", "yaw_rate_rad_s", (0.05, 1.6), (0.0, 1.61)),
        ("so101", "joint_speed_rad_s", (0.05, 3.0), (0.0, 3.1)),
        ("so101 joint", "zero_steps", (0, 4095), (-1, 4096)),
        ("robotiq", "open_width_m", (0.012, 0.2), (0.0, 0.21, 85.0)),
        ("robotiq", "force_n", ((20.0, 235.0),), ((0.02, 0.235), (235.0, 20.0))),
        ("robotiq", "speed_m_s", ((0.02, 0.15),), ((20.0, 150.0), (0.0, 0.15))),
        ("robotiq-ur-socket", "port", (1, 65535), (0, 65536)),
        ("uvc", "size", ((640, 480),), ((0, 0), (479, 480))),
        ("mjpeg", "crop", ((0, 0, 640, 480),), ((0, 0, 641, 480), (480, 0, 0, 480))),
    ],
)
def test_the_ends_of_a_range_are_in_it(driver: str, name: str, ends: tuple[Any, ...], beyond: tuple[Any, ...]):
    for good in ends:
        assert getattr(dataclasses.replace(GOOD[driver], **{name: good}), name) == good
    for bad in beyond:
        with pytest.raises(ConfigError):
            dataclasses.replace(GOOD[driver], **{name: bad})


def test_a_stream_of_unknown_size_has_no_crop_that_cannot_be():
    UvcOptions(url="http://127.0.0.1/stream", crop=(0, 0, 480, 480))
    for crop in ((0, 0, 0, 480), (-1, 0, 480, 480), (0, 0, 480_000, 480)):
        with pytest.raises(ConfigError, match="crop"):
            UvcOptions(url="http://127.0.0.1/stream", crop=crop)


def test_a_file_that_says_nan_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"turn_rad_s is nan, expected 0\.05 to 1\.6"):
        build_options(UrOptions, {"host": HOST, "turn_rad_s": math.nan}, "[arm]")
    with pytest.raises(ConfigError, match=r"open_width_m is 85\.0, expected 0\.01 to 0\.2 m, not mill"):
        build_options(SocketOptions, {"host": HOST, "calibration": {"open_width_m": 85.0}}, "[gripper]")
