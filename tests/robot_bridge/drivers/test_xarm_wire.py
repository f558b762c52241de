"""Bytes as the vendor's developer manual prints them, and as the vendor's library reads them; none are made by us."""

import contextlib
import math
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.errors import ConfigError, RobotError
from robot_bridge.contracts import Pose, quaternion_distance_rad
from robot_bridge.drivers.xarm_motion import refusal_of, velocity_towards
from robot_bridge.drivers.xarm_options import XArmOptions
from robot_bridge.drivers.xarm_sdk import check_settings
from robot_bridge.drivers.xarm_stop import rotation_between
from robot_bridge.drivers.xarm_wire import Reports, parse_report, pose_from_wire, request_frame, wire_pose
from robot_bridge.robot import ToolPose
from sim.arm import joint_angles
from sim.servers import xarm_frames as frames
from sim.servers.xarm_controller import forward_kinematics

BOX = ((0.4, -0.2, 0.0), (0.7, 0.2, 0.4))
REPORT = (
    "00 00 00 57 12 00 03"  # 87 bytes, mode 1, state 2, 3 commands
    + " 00 00 80 3F" * 7  # 1 rad
    + " 00 00 C8 43 00 00 00 00 00 00 48 43 DB 0F 49 40 00 00 00 00 00 00 00 00"  # 400, 0, 200 mm, pi, 0, 0
    + " 00 00 00 00" * 7
)


def hexa(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize(
    ("printed", "function", "data"),
    [
        ("00 01 00 02 00 03 0B 08 01", 11, b"\x08\x01"),
        ("00 01 00 02 00 02 0C 00", 12, b"\x00"),
        ("00 01 00 02 00 01 0F", 15, b""),
        ("00 01 00 02 00 01 29", 41, b""),
    ],
)
def test_requests_as_the_manual_prints_them(printed: str, function: int, data: bytes):
    assert request_frame(1, function, data) == hexa(printed)


@pytest.mark.parametrize(
    ("printed", "made"),
    [
        ("00 01 00 02 00 03 0D 00 02", frames.reply(1, 2, 13, 0, b"\x02")),
        ("00 01 00 02 00 02 0B 10", frames.reply(1, 2, 11, 0x10)),
        (
            "00 01 00 02 00 1A 29 00 00 00 4F 43 00 00 00 00 00 00 E0 42 DB 0F 49 40 00 00 00 00 00 00 00 00",
            frames.reply(1, 2, 41, 0, frames.floats([207.0, 0.0, 112.0, math.pi, 0.0, 0.0])),
        ),
    ],
)
def test_the_servers_replies_are_the_manuals(printed: str, made: bytes):
    assert made == hexa(printed)


def test_the_manuals_velocity_request_is_read_as_printed():
    printed = hexa("00 00 F0 41 00 00 00 00 00 00 A0 41 91 0A 06 3F 00 00 00 00 00 00 00 00 00 CC CC 4C 3E")
    assert frames.read_floats(printed, 6) == pytest.approx((30.0, 0.0, 20.0, math.radians(30.0), 0.0, 0.0), abs=1e-3)
    assert frames.read_floats(printed, 1, 25)[0] == pytest.approx(0.2)


def test_the_manuals_reduced_mode_reply_is_made():
    printed = hexa(
        "01 2C 00 64 01 2C FF F6 01 2C 00 32 00 00 C8 42 DB 0F 49 40 DB 0F C9 C0 DB 0F C9 40 15 C6 03 C0 91 0A 06 40 "
        "CE 53 7B C0 68 96 44 3E DB 0F C9 C0 DB 0F C9 40 35 B3 D8 BF DB 0F 49 40 DB 0F C9 C0 DB 0F C9 40 "
        "00 00 00 00 00 00 00 00 01 01"
    )
    limits = struct.unpack_from("<14f", printed, 20)
    snapshot = frames.Snapshot(
        2, 0, 0, [0.0] * 7, [0.0] * 6, [0.0] * 7, True, 0, 0, [0.0] * 6, [0.0] * 4, 3, 0.0, False,
        [300, 100, 300, -10, 300, 50], 100.0, math.pi, limits, fence=True, rebound=True,
    )  # fmt: skip
    assert frames.reduced_block(snapshot) == b"\x00" + printed


def test_a_report_is_read_and_its_units_end_there():
    report = parse_report(hexa(REPORT))
    assert (report.state, report.mode, report.waiting) == (2, 1, 3)
    assert report.joints_rad == (1.0,) * 7
    assert report.pose.position_m == pytest.approx((0.4, 0.0, 0.2))
    assert report.pose.quaternion_xyzw == pytest.approx((1.0, 0.0, 0.0, 0.0), abs=1e-6)


@pytest.mark.parametrize("port", [30001, 30002, 30003])
def test_the_vendors_library_reads_the_servers_reports(port: int):
    from xarm.x3.report import ReportDataStructure

    snapshot = frames.Snapshot(
        1, 5, 4, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [400.0, -50.0, 200.0, 3.0, 0.1, 0.2], [1.0] * 7, True, 31, 11,
        [0.0, 0.0, 172.0, 0.0, 0.0, 0.0], [0.82, 1.0, 2.0, 3.0], 4, 12.5, True,
        [300, -100, 200, -200, 400, 50], 250.0, 0.8, fence=True, count=77,
    )  # fmt: skip
    make = {30001: frames.normal_report, 30002: frames.rich_report, 30003: frames.real_time_report}[port]
    read = ReportDataStructure.create(port)
    frame = make(snapshot)
    assert len(frame) == len(read)
    read.update(frame)
    assert (read.data_size, read.state, read.mode, read.cmd_num) == (len(frame), 1, 5, 4)
    assert read.actual_tcp_pose == pytest.approx([400.0, -50.0, 200.0, 3.0, 0.1, 0.2])
    assert read.actual_joint_angle == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    if port == 30003:
        return
    assert (read.error_code, read.warn_code, read.collision_sens) == (31, 11, 4)
    assert read.tcp_offset[2] == pytest.approx(172.0)
    if port == 30002:
        assert read.reduced_tcp_boundary == [[-100, 300], [-200, 200], [50, 400]]
        assert (read.is_reduced_mode, read.is_fence_mode, read.counter, read.version) == (True, True, 77, VERSION)
        assert read.reduced_tcp_max_speed == pytest.approx(250.0)
        assert read.temperatures == [35] * 7


VERSION = frames.VERSION[:30].decode()


@given(st.lists(st.integers(1, 200), max_size=20))
def test_reports_come_out_whole_however_the_bytes_arrive(cuts: list[int]):
    frame = hexa(REPORT)
    stream, splitter, found = frame * 3, Reports(), []
    for cut in [*cuts, len(stream)]:
        found += splitter.feed(stream[:cut])
        stream = stream[cut:]
    assert found == [frame] * 3


def test_a_stream_out_of_step_is_an_error():
    with pytest.raises(RobotError, match="out of step"):
        Reports().feed(hexa("43 C8 00 00 00 00"))


angles = st.floats(-math.pi, math.pi)


@given(angles, st.floats(-1.5, 1.5), angles)
def test_orientation_survives_the_wire(roll: float, pitch: float, yaw: float):
    pose = pose_from_wire((500.0, -100.0, 250.0, roll, pitch, yaw))
    assert pose.position_m == pytest.approx((0.5, -0.1, 0.25))
    assert quaternion_distance_rad(pose_from_wire(wire_pose(pose)), pose) < 1e-6


def test_yaw_turns_a_tool_that_points_down_about_the_base():
    x, y, z, roll, pitch, yaw = wire_pose(Pose((0.6, 0.1, 0.2), (math.cos(0.25), math.sin(0.25), 0.0, 0.0)))
    assert (x, y, z) == pytest.approx((600.0, 100.0, 200.0))
    assert (abs(roll), pitch, yaw) == pytest.approx((math.pi, 0.0, 0.5))


def test_rotation_between_orientations():
    first, second = (pose_from_wire((0.0, 0.0, 0.0, math.pi, 0.0, yaw)) for yaw in (0.3, -0.2))
    assert np.allclose(rotation_between(first, second), [0.0, 0.0, -0.5])


@given(st.floats(0.5, 0.7), st.floats(-0.15, 0.15), st.floats(0.02, 0.3), st.floats(-1.5, 1.5))
def test_the_servers_forward_kinematics_undo_the_inverse(x_m: float, y_m: float, z_m: float, yaw: float):
    x, y, z, roll, pitch, turned = forward_kinematics(joint_angles(ToolPose(x_m, y_m, z_m, yaw)))
    assert (x, y, z, pitch, turned) == pytest.approx((1000 * x_m, 1000 * y_m, 1000 * z_m, 0.0, yaw), abs=1e-6)
    assert abs(roll) == pytest.approx(math.pi)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host": "robot.local"}, "IPv4"),
        ({"box_high_m": (700.0, 200.0, 400.0)}, "not millimetres"),
        ({"box_high_m": (0.3, 0.2, 0.4)}, "must lie below"),
        ({"speed_limit_m_s": 250.0}, "speed_limit_m_s"),
        ({"collision_sensitivity": 0}, "collision_sensitivity"),
        ({"tcp_offset_m": (0.0, 0.0, 172.0)}, "not millimetres"),
    ],
)
def test_options_refuse_what_cannot_be_meant(change: dict[str, object], message: str):
    good: dict[str, object] = {"host": "192.168.1.203", "box_low_m": BOX[0], "box_high_m": BOX[1]}
    XArmOptions(**good)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        XArmOptions(**{**good, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offset", "fits"),
    [
        ((0.0, 0.0, 172.0, 0.0, 0.0, 0.0), True),
        ((0.3, -0.3, 172.3, 0.005, -0.005, 0.005), True),
        ((0.0, 0.0, 171.0, 0.0, 0.0, 0.0), False),
        ((1.0, 0.0, 172.0, 0.0, 0.0, 0.0), False),
        ((0.0, 0.0, 172.0, 0.1, 0.0, 0.0), False),
        ((0.0, 0.0, 172.0, 0.0, -0.1, 0.0), False),
        ((0.0, 0.0, 172.0, 0.0, 0.0, math.pi / 4), False),
        ((0.0, 0.0, 172.0, 0.0, 0.0, math.nan), False),
    ],
)
def test_the_whole_tool_offset_is_compared(monkeypatch: pytest.MonkeyPatch, offset: tuple[float, ...], fits: bool):
    monkeypatch.setattr("robot_bridge.drivers.xarm_sdk._SETTINGS_S", 0.05)
    sdk = SimpleNamespace(tcp_offset=list(offset), collision_sensitivity=3)
    with contextlib.nullcontext() if fits else pytest.raises(RobotError, match="tool offset"):
        check_settings(sdk, XArmOptions("10.0.0.1", *BOX))


def test_the_fence_stands_a_centimetre_outside_the_box():
    assert XArmOptions("10.0.0.1", (0.4, -0.2, 0.0), (0.7, 0.2, 0.4)).fence_mm() == (710, 390, 210, -210, 410, -10)


places = st.tuples(st.floats(0.4, 0.7), st.floats(-0.2, 0.2), st.floats(0.0, 0.4))


@given(places, places, st.floats(0.01, 1.0), angles, angles)
def test_a_stream_that_ends_never_carries_the_tool_past_its_target(
    start: tuple[float, float, float], end: tuple[float, float, float], valid_for_s: float, first: float, second: float
):
    options = XArmOptions("10.0.0.1", *BOX)
    here, target = (
        pose_from_wire((*(1000 * v for v in p), math.pi, 0.0, a)) for p, a in ((start, first), (end, second))
    )
    velocity = np.array(velocity_towards(here, target, valid_for_s, options))
    assert np.linalg.norm(velocity[:3]) <= 250.0 + 1e-6
    assert np.linalg.norm(velocity[3:]) <= 0.8 + 1e-9
    way, gap = velocity[:3] / 1000 * valid_for_s, np.array(end) - np.array(start)
    assert np.linalg.norm(way) <= np.linalg.norm(gap) + 1e-9
    assert way @ gap >= -1e-12


@given(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 3))
def test_only_targets_in_the_box_pass(position: tuple[float, float, float]):
    inside = all(low <= p <= high for low, p, high in zip(BOX[0], position, BOX[1], strict=True))
    assert (refusal_of(Pose(position, (1.0, 0.0, 0.0, 0.0)), XArmOptions("10.0.0.1", *BOX)) == "") == inside
