"""The xArm driver through the vendor's unmodified library against a simulated controller in a process of its own."""

import dataclasses
import math
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from qtopt.errors import NotReady, RobotError
from robot_bridge.contracts import ArmMode, Capability, MotionOutcome, MotionResult, Pose
from robot_bridge.drivers.xarm import DRIVER, XArm
from robot_bridge.drivers.xarm_options import XArmOptions
from robot_bridge.drivers.xarm_stop import XArmStopChannel
from tests.robot_bridge.drivers.xarm_server import BOX_LOW_M, LIBRARY_WARNS, Server, down, running, wait_for

pytestmark = [pytest.mark.realtime, LIBRARY_WARNS]

HOME = (0.6, 0.0, 0.25)
STOP_WAY_M = 0.03


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def connected(server: Server) -> Iterator[XArm]:
    arm = DRIVER.open(server.options)
    assert isinstance(arm, XArm)
    arm.connect(10.0)
    yield arm
    arm.close()


@pytest.fixture
def arm(connected: XArm) -> XArm:
    connected.recover()
    assert connected.move_to(down(*HOME), 0.25, 2.0, 10.0).outcome is MotionOutcome.REACHED
    return connected


class Running(threading.Thread):
    """A motion under way in a thread of its own."""

    def __init__(self, arm: XArm, target: Pose, speed_m_s: float = 0.1) -> None:
        super().__init__()
        self.result: MotionResult | None = None
        self._move = lambda: arm.move_to(target, speed_m_s, 1.0, 10.0)
        self.start()

    def run(self) -> None:
        self.result = self._move()

    def ended(self) -> MotionResult:
        self.join(10.0)
        assert self.result is not None
        return self.result


def test_connecting_sets_the_controllers_limits_and_moves_nothing(server: Server):
    before = server.truth()
    arm = XArm(server.options)
    arm.connect(10.0)
    try:
        after = server.truth()
        assert after["tool"] == pytest.approx(before["tool"], abs=1e-4)
        assert (after["fence"], after["boundary_mm"], after["sensitivity"]) == (
            True,
            [760, 440, 210, -210, 360, -10],
            3,
        )
        assert arm.state().mode is ArmMode.READY
        assert arm.state().is_finite()
        assert arm.state().joint_temperature_c == 35.0
        assert Capability.CONTROLLER_BOX in arm.capabilities
        assert Capability.WRENCH_MEASURED not in arm.capabilities
    finally:
        arm.close()
        arm.close()


def test_the_librarys_socket_timeout_stays_out_of_the_process(arm: XArm, server: Server):
    from xarm.core.comm.socket_port import SocketPort
    from xarm.core.config.x_config import XCONF

    reports = SocketPort(server.host, XCONF.SocketConf.TCP_REPORT_RICH_PORT)  # as its threads do after a broken stream
    reports.close()
    assert arm.state().is_finite()
    assert socket.getdefaulttimeout() is None


def test_an_unexpected_tool_offset_is_refused(server: Server):
    arm = XArm(dataclasses.replace(server.options, tcp_offset_m=(0.0, 0.0, 0.1)))
    with pytest.raises(RobotError, match="tool offset"):
        arm.connect(10.0)


def test_another_arm_at_the_address_is_refused_before_anything_is_set(server: Server):
    arm = XArm(dataclasses.replace(server.options, serial="XI130001A02"))
    with pytest.raises(NotReady, match="serial number XI130001A01, expected XI130001A02"):
        arm.connect(10.0)


def test_nobody_there():
    arm = XArm(XArmOptions("127.4.251.1", BOX_LOW_M, (0.7, 0.2, 0.3), control_port=1502))
    with pytest.raises(RobotError, match="check its power"):
        arm.connect(1.0)


def test_a_move_ends_where_it_should(server: Server, arm: XArm):
    yaw = 0.4
    target = Pose((0.55, 0.1, 0.12), (math.cos(yaw / 2), math.sin(yaw / 2), 0.0, 0.0))
    result = arm.move_to(target, 0.25, 2.0, 10.0)
    assert result.outcome is MotionOutcome.REACHED
    tool = server.truth()["tool"]
    assert tool == pytest.approx([0.55, 0.1, 0.12, yaw], abs=2e-3)
    assert result.pose is not None
    assert result.pose.position_m == pytest.approx(tool[:3], abs=2e-3)


def test_joints_go_where_they_were(server: Server, arm: XArm):
    joints = arm.state().joints_rad
    arm.move_to(down(0.55, 0.1, 0.2), 0.25, 2.0, 10.0)
    assert arm.move_joints(joints, 0.5, 10.0).outcome is MotionOutcome.REACHED
    assert server.tool_m() == pytest.approx(HOME, abs=2e-3)
    assert arm.move_joints(joints, 30.0, 10.0).outcome is MotionOutcome.REJECTED


def test_what_cannot_be_meant_moves_nothing(server: Server, arm: XArm):
    for case, target, speed_m_s in (
        ("mm", down(600.0, 0.0, 250.0), 0.1),
        ("outside", down(0.6, 0.0, 0.36), 0.1),
        ("nan", down(0.6, math.nan, 0.2), 0.1),
        ("mm/s", down(0.6, 0.0, 0.2), 100.0),
        ("no speed", down(0.6, 0.0, 0.2), 0.0),
        ("quaternion", Pose((0.6, 0.0, 0.2), (2.0, 0.0, 0.0, 0.0)), 0.1),
    ):
        result = arm.move_to(target, speed_m_s, 1.0, 5.0)
        assert result.outcome is MotionOutcome.REJECTED, case
        assert result.reason, case
        assert server.tool_m() == pytest.approx(HOME, abs=1e-3), case


def pass_by(arm: XArm):
    """Makes ready for positions, which the driver never sends."""
    arm.sdk.set_mode(0)
    arm.sdk.set_state(0)
    until_s = time.monotonic() + 5.0
    while arm.sdk.mode != 0 and time.monotonic() < until_s:
        time.sleep(0.01)


def test_the_controllers_fence_holds_even_where_the_driver_is_passed_by(server: Server, arm: XArm):
    pass_by(arm)
    assert arm.sdk.set_position(x=600.0, y=0.0, z=400.0, roll=math.pi, pitch=0.0, yaw=0.0, speed=100) == 0
    wait_for(lambda: arm.state().mode is ArmMode.PROTECTIVE_STOP)
    assert server.truth()["error"] == 35
    assert server.tool_m() == pytest.approx(HOME, abs=2e-3)


def test_the_controllers_speed_limit_holds_even_where_the_driver_is_passed_by(server: Server, arm: XArm):
    pass_by(arm)
    arm.sdk.set_position(x=600.0, y=150.0, z=250.0, roll=math.pi, pitch=0.0, yaw=0.0, speed=900, mvacc=5000)
    fastest = 0.0
    for _ in range(60):
        fastest = max(fastest, math.hypot(*server.truth()["twist"][:3]))
        time.sleep(0.01)
    assert 0.2 < fastest < 0.27


@pytest.mark.parametrize("how", ["stop", "hold", "channel"])
def test_a_stop_from_another_thread(server: Server, arm: XArm, how: str):
    channel = XArmStopChannel(server.options)
    channel.connect(5.0)
    try:
        motion = Running(arm, down(0.6, 0.19, 0.25))
        wait_for(lambda: server.truth()["twist"][1] > 0.09)
        before = server.tool_m()
        start_s = time.monotonic()
        if how == "stop":
            arm.stop(2.0)
        elif how == "hold":
            arm.hold()
        else:
            assert channel.stop()
        assert time.monotonic() - start_s < 0.5
        result = motion.ended()
        assert result.outcome is (MotionOutcome.FAULT if how == "channel" else MotionOutcome.STOPPED)
        wait_for(lambda: not server.truth()["moving"])
        assert math.dist(server.tool_m(), before) < STOP_WAY_M
    finally:
        channel.close()


def test_after_our_own_stop_the_next_command_moves(server: Server, arm: XArm):
    arm.stop(2.0)
    wait_for(lambda: arm.state().mode is ArmMode.HOLD)
    assert arm.move_to(down(0.6, 0.05, 0.25), 0.2, 2.0, 10.0).outcome is MotionOutcome.REACHED


def test_after_somebody_elses_stop_nothing_moves_until_recover(server: Server, arm: XArm):
    channel = XArmStopChannel(server.options)
    channel.connect(5.0)
    assert channel.stop()
    channel.close()
    wait_for(lambda: arm.state().mode is ArmMode.IDLE)
    for result in (arm.move_to(down(0.6, 0.1, 0.25), 0.2, 2.0, 5.0), arm.servo(down(0.6, 0.1, 0.25), 0.2)):
        assert result.outcome is MotionOutcome.REJECTED
        assert "something else" in result.reason
    assert server.tool_m() == pytest.approx(HOME, abs=2e-3)
    arm.recover()
    assert arm.move_to(down(0.6, 0.05, 0.25), 0.2, 2.0, 10.0).outcome is MotionOutcome.REACHED


def test_the_deadline_ends_a_motion(server: Server, arm: XArm):
    assert arm.move_to(down(0.6, 0.19, 0.25), 0.05, 1.0, 0.5).outcome is MotionOutcome.TIMEOUT
    assert not server.truth()["moving"]
    assert server.tool_m()[1] < 0.1


def test_a_stream_is_followed(server: Server, arm: XArm):
    end_s = time.monotonic() + 2.0
    while time.monotonic() < end_s:
        result = arm.servo(down(0.62, 0.05, 0.2), 0.2)
        assert result.outcome is MotionOutcome.REACHED, result
        time.sleep(0.02)
    assert server.tool_m() == pytest.approx((0.62, 0.05, 0.2), abs=2e-3)


def test_a_stream_that_ends_leaves_the_arm_standing_short_of_its_target(server: Server, arm: XArm):
    target = (0.6, 0.19, 0.25)
    for _ in range(8):
        arm.servo(down(*target), 0.2)
        time.sleep(0.02)
    ended_s = time.monotonic()
    wait_for(lambda: not server.truth()["moving"])
    assert time.monotonic() - ended_s < 1.0
    way_m = server.tool_m()[1]
    assert 0.005 < way_m < 0.15
    time.sleep(0.3)
    assert server.tool_m()[1] == pytest.approx(way_m, abs=1e-3)
    assert arm.move_to(down(*HOME), 0.25, 2.0, 10.0).outcome is MotionOutcome.REACHED


def test_the_payload_arrives_in_kilograms_and_millimetres(server: Server, arm: XArm):
    arm.set_payload(0.5, (0.0, 0.01, 0.05))
    assert server.truth()["load"] == pytest.approx([0.5, 0.0, 10.0, 50.0])
    with pytest.raises(RobotError, match="payload"):
        arm.set_payload(0.5, (0.0, 0.0, 50.0))
