"""What goes wrong with an xArm, what driver and stop channel make of it, and where the simulated tool ends."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator

import pytest

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode, MotionOutcome
from robot_bridge.drivers.xarm import XArm
from robot_bridge.drivers.xarm_stop import XArmStopChannel
from tests.robot_bridge.drivers.test_xarm import HOME, Running
from tests.robot_bridge.drivers.xarm_server import LIBRARY_WARNS, Server, down, running, wait_for

pytestmark = [pytest.mark.realtime, LIBRARY_WARNS]


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The shared controller, every fault taken back afterwards."""
    yield shared
    for fault in ("silent_reports", "frozen_reports", "split_frames", "duplicate_frames", "mute_control", "nan"):
        shared.inject(fault, False)
    shared.inject("pose_jump_mm", 0.0)
    shared.inject("push", [0, 0, 0])
    shared.inject("emergency_stop", False)


@pytest.fixture
def channel(server: Server) -> Iterator[XArmStopChannel]:
    channel = XArmStopChannel(server.options)
    channel.connect(5.0)
    yield channel
    channel.close()
    channel.close()


@pytest.fixture
def arm(server: Server) -> Iterator[XArm]:
    arm = XArm(server.options)
    arm.connect(10.0)
    arm.recover()
    assert arm.move_to(down(*HOME), 0.25, 2.0, 10.0).outcome is MotionOutcome.REACHED
    yield arm
    arm.close()


def advance_s(channel: XArmStopChannel, over_s: float) -> float:
    before_s = channel.state().t_controller_s
    time.sleep(over_s)
    return channel.state().t_controller_s - before_s


def test_the_clock_advances_with_the_reports(channel: XArmStopChannel):
    assert 0.2 < advance_s(channel, 1.0) < 1.3


@pytest.mark.parametrize("fault", ["silent_reports", "frozen_reports"])
def test_reports_that_prove_nothing_let_no_time_pass(server: Server, channel: XArmStopChannel, fault: str):
    server.inject(fault)
    time.sleep(0.2)
    assert advance_s(channel, 0.5) == 0.0
    assert channel.state().mode is not ArmMode.OFFLINE
    server.inject(fault, False)
    time.sleep(0.1)
    assert advance_s(channel, 0.5) > 0.05


@pytest.mark.parametrize("fault", ["split_frames", "duplicate_frames"])
def test_odd_but_honest_frames_have_no_effect(server: Server, channel: XArmStopChannel, arm: XArm, fault: str):
    server.inject(fault)
    result = arm.move_to(down(0.6, 0.05, 0.2), 0.2, 2.0, 10.0)
    assert result.outcome is MotionOutcome.REACHED
    assert 0.05 < advance_s(channel, 0.5) < 0.8
    assert channel.state().pose.position_m == pytest.approx((0.6, 0.05, 0.2), abs=2e-3)


@pytest.mark.parametrize("fault", ["silent_reports", "frozen_reports"])
def test_a_motion_without_reports_is_stopped(server: Server, arm: XArm, fault: str):
    motion = Running(arm, down(0.6, 0.19, 0.25), 0.05)
    wait_for(lambda: server.truth()["twist"][1] > 0.04)
    before = server.tool_m()
    server.inject(fault)
    assert motion.ended().outcome is MotionOutcome.LINK_LOST
    wait_for(lambda: not server.truth()["moving"])
    assert math.dist(server.tool_m(), before) < 0.05  # 0.25 s until it is noticed, and the way to stand
    assert arm.servo(down(*HOME), 0.2).outcome is MotionOutcome.LINK_LOST
    assert arm.move_to(down(*HOME), 0.1, 1.0, 5.0).outcome is MotionOutcome.LINK_LOST


def test_numbers_that_are_none_come_through(server: Server, channel: XArmStopChannel):
    server.inject("nan")
    wait_for(lambda: not channel.state().is_finite())


def test_a_pose_that_jumps_shows_as_speed(server: Server, channel: XArmStopChannel):
    x_m = channel.state().pose.position_m[0]
    server.inject("pose_jump_mm", 80.0)
    wait_for(lambda: math.hypot(*channel.state().twist[:3]) > 0.3)
    assert channel.state().pose.position_m[0] == pytest.approx(x_m + 0.08, abs=2e-3)


def test_a_collision_is_a_fault_until_recover(server: Server, arm: XArm, channel: XArmStopChannel):
    motion = Running(arm, down(0.6, 0.19, 0.25), 0.05)
    wait_for(lambda: server.truth()["twist"][1] > 0.04)
    server.inject("push", [0, 0, 90])
    result = motion.ended()
    assert result.outcome is MotionOutcome.FAULT
    assert "31" in result.reason
    server.inject("push", [0, 0, 0])
    wait_for(lambda: not server.truth()["moving"])
    stood = server.tool_m()
    wait_for(lambda: channel.state().mode is ArmMode.PROTECTIVE_STOP)
    assert channel.state().codes["error"] == 31
    assert arm.state().mode is ArmMode.PROTECTIVE_STOP
    for refused in (arm.move_to(down(*HOME), 0.1, 1.0, 5.0), arm.servo(down(*HOME), 0.2)):
        assert refused.outcome is MotionOutcome.REJECTED
    assert server.tool_m() == pytest.approx(stood, abs=1e-3)
    arm.recover()
    assert server.tool_m() == pytest.approx(stood, abs=1e-3)
    assert arm.move_to(down(*HOME), 0.2, 1.0, 10.0).outcome is MotionOutcome.REACHED


def test_an_emergency_stop_cannot_be_recovered_while_pressed(server: Server, arm: XArm, channel: XArmStopChannel):
    motion = Running(arm, down(0.6, 0.19, 0.25), 0.05)
    wait_for(lambda: server.truth()["twist"][1] > 0.04)
    server.inject("emergency_stop", True)
    assert motion.ended().outcome is MotionOutcome.FAULT
    wait_for(lambda: channel.state().mode is ArmMode.EMERGENCY_STOP)
    with pytest.raises(RobotError, match="emergency stop"):
        arm.recover()
    server.inject("emergency_stop", False)
    assert arm.move_to(down(*HOME), 0.1, 1.0, 5.0).outcome is MotionOutcome.REJECTED
    arm.recover()
    assert arm.state().mode is ArmMode.READY


@pytest.mark.parametrize("offset_m", [0.172, 0.1])
def test_the_tool_offset_is_looked_at_after_an_emergency_stop(server: Server, offset_m: float):
    """Before, the library does not tell it."""
    server.inject("emergency_stop", True)
    arm = XArm(dataclasses.replace(server.options, tcp_offset_m=(0.0, 0.0, offset_m)))
    arm.connect(10.0)
    assert arm.state().mode is ArmMode.EMERGENCY_STOP
    server.inject("emergency_stop", False)
    with pytest.raises(RobotError, match="tool offset") if offset_m != 0.172 else contextlib.nullcontext():
        arm.recover()
    assert (arm.state().mode is ArmMode.READY) == (offset_m == 0.172)
    arm.close()


def test_a_muted_controller_does_not_keep_a_stop_waiting(server: Server, arm: XArm, channel: XArmStopChannel):
    server.inject("mute_control")
    start_s = time.monotonic()
    assert not channel.stop()
    assert time.monotonic() - start_s < 1.0
    start_s = time.monotonic()
    assert arm.move_to(down(*HOME), 0.1, 1.0, 5.0).outcome is MotionOutcome.LINK_LOST
    assert time.monotonic() - start_s < 5.0


def test_a_dropped_connection_is_lost_for_good(server: Server, arm: XArm, channel: XArmStopChannel):
    motion = Running(arm, down(0.6, 0.19, 0.25), 0.05)
    wait_for(lambda: server.truth()["twist"][1] > 0.04)
    before = server.tool_m()
    server.inject("drop_connections")
    assert motion.ended().outcome is MotionOutcome.LINK_LOST
    wait_for(lambda: not server.truth()["moving"])
    assert math.dist(server.tool_m(), before) < 0.05, "stopped over a new connection, not at its target"
    wait_for(lambda: channel.state().mode is ArmMode.OFFLINE)
    assert arm.state().mode is ArmMode.OFFLINE
    assert arm.servo(down(*HOME), 0.2).outcome is MotionOutcome.LINK_LOST
    assert channel.stop(), "a controller that still listens is stopped over a new connection"
    again = XArm(server.options)
    again.connect(10.0)
    again.stop(2.0)
    again.recover()
    assert again.move_to(down(*HOME), 0.2, 1.0, 10.0).outcome is MotionOutcome.REACHED
    again.close()


def test_a_controller_that_dies():
    with running() as server:
        channel = XArmStopChannel(server.options)
        channel.connect(5.0)
        assert channel.state().mode is ArmMode.READY
    wait_for(lambda: channel.state().mode is ArmMode.OFFLINE)
    assert not channel.stop()
    channel.close()
