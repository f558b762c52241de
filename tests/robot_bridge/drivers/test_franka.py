"""The Franka driver through franky against franky-sim, which speaks the arm's own protocol, in another process.

franky-sim needs MuJoCo and Pinocchio and is no dependency. The tests run where ``FRANKY_SIM_PYTHON`` names an
interpreter that has it, or where ``franky-sim`` is on the path.
"""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from qtopt.errors import ConfigError, RobotError
from robot_bridge.contracts import ArmMode, Capability, MotionOutcome, ObjectSensed, Pose
from robot_bridge.drivers.franka import DRIVER, GRIPPER_DRIVER, FrankaArm
from robot_bridge.drivers.franka_frames import QUARTER, QUARTER_BACK, times
from robot_bridge.drivers.franka_gripper import FrankaGripperOptions
from robot_bridge.drivers.franka_options import FrankaOptions
from robot_bridge.robot import ToolPose
from tests.contracts.arm import ArmContract
from tests.contracts.gripper import GripperContract
from tests.robot_bridge.drivers.franka_controller import Controller, needs_sim, wait_for, wait_for_rest


def moved(pose, x=0.0, y=0.0, z=0.0):
    a, b, c = pose.position_m
    return Pose((a + x, b + y, c + z), pose.quaternion_xyzw)


def in_background(call):
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    return thread, results


@pytest.fixture(scope="module")
def shared():
    """One controller for the tests that leave it whole."""
    controller = Controller("127.31.4.1")
    yield controller
    controller.close()


@pytest.fixture
def arm(shared):
    pytest.importorskip("franky", reason="franky-control is not installed: pip install qtopt[franka]")
    shared.ask(mode="kIdle", force=[0.0] * 6)
    arm = DRIVER.open(FrankaOptions(shared.address, realtime=False))
    arm.connect(20.0)
    yield arm
    shared.ask(mode="kIdle", force=[0.0] * 6)
    arm.close()


@pytest.mark.realtime
@needs_sim
@pytest.mark.timeout(300)
class TestArm:
    def test_connects_without_motion_and_says_what_it_is(self, shared, arm):
        state = arm.state()
        assert state.mode is ArmMode.READY
        assert len(state.joints_rad) == 7
        assert math.dist(state.pose.position_m, shared.ask()["position_m"]) < 0.002
        assert Capability.STOP_STATUS not in arm.capabilities
        first = arm.state().t_controller_s
        wait_for(lambda: arm.state().t_controller_s > first)

    def test_a_line_is_reached_in_the_simulator(self, shared, arm):
        target = moved(arm.state().pose, y=0.03, z=-0.02)
        result = arm.move_to(target, 0.2, 1.0, 60.0)
        assert result.outcome is MotionOutcome.REACHED, result
        assert math.dist(result.pose.position_m, target.position_m) < 0.003
        assert math.dist(shared.ask()["position_m"], target.position_m) < 0.003
        assert arm.move_to(target, -0.1, 1.0, 5.0).outcome is MotionOutcome.REJECTED

    def test_joints(self, arm):
        before = arm.state().joints_rad
        target = (*before[:6], before[6] + 0.1)
        assert arm.move_joints(target, 0.5, 60.0).outcome is MotionOutcome.REACHED
        assert arm.state().joints_rad[6] == pytest.approx(target[6], abs=0.01)
        assert arm.move_joints((0.0,) * 6, 0.5, 5.0).outcome is MotionOutcome.REJECTED

    @pytest.mark.parametrize("how", ["stop", "hold"])
    def test_stop_and_hold(self, shared, arm, how):
        start = arm.state().pose
        away = -0.2 if start.position_m[1] > 0 else 0.2
        thread, results = in_background(lambda: arm.move_to(moved(start, y=away), 0.05, 0.5, 90.0))
        wait_for(lambda: abs(arm.state().pose.position_m[1] - start.position_m[1]) > 0.01)
        before = shared.ask()["position_m"]
        if how == "stop":
            arm.stop(2.0)
        else:
            arm.hold()
        thread.join(60)
        assert results[0].outcome is MotionOutcome.STOPPED, results
        wait_for_rest(shared)
        assert math.dist(shared.ask()["position_m"], before) < 0.02
        assert arm.move_to(moved(arm.state().pose, y=-away / 20), 0.2, 1.0, 60.0).outcome is MotionOutcome.REACHED

    def test_a_deadline_stops_it(self, shared, arm):
        start = arm.state().pose
        result = arm.move_to(moved(start, x=-0.10), 0.02, 0.5, 1.0)
        assert result.outcome is MotionOutcome.TIMEOUT
        wait_for_rest(shared)
        assert abs(shared.ask()["position_m"][0] - start.position_m[0]) < 0.06

    def test_a_stream_holds_when_it_ends(self, shared, arm):
        start = arm.state().pose
        for index in range(10):
            assert arm.servo(moved(start, z=0.001 * (index + 1)), 0.5).outcome is MotionOutcome.REACHED
            time.sleep(0.05)
        arm.servo(moved(start, z=0.15), 0.3)
        wait_for(lambda: arm.state().mode is ArmMode.READY)
        wait_for_rest(shared)
        assert start.position_m[2] < shared.ask()["position_m"][2] < start.position_m[2] + 0.10

    def test_a_force_ends_the_motion_as_contact(self, shared, arm):
        start = arm.state().pose
        shared.ask(force=[0.0, 0.0, 8.0, 0.0, 0.0, 0.0])
        wait_for(lambda: arm.state().wrench[2] == pytest.approx(8.0))
        arm.zero_wrench()
        wait_for(lambda: abs(arm.state().wrench[2]) < 1e-6)
        thread, results = in_background(lambda: arm.move_to(moved(start, z=-0.10), 0.05, 0.5, 60.0))
        wait_for(lambda: start.position_m[2] - arm.state().pose.position_m[2] > 0.005)
        shared.ask(force=[0.0, 0.0, 22.0, 0.0, 0.0, 0.0])
        assert thread.is_alive(), "14 N above zero is not yet contact"
        touched = shared.ask(force=[0.0, 0.0, 30.0, 0.0, 0.0, 0.0])["position_m"][2]
        thread.join(60)
        assert results[0].outcome is MotionOutcome.CONTACT, results
        assert touched - shared.ask()["position_m"][2] < 0.02
        assert arm.state().mode is ArmMode.READY

    def test_a_reflex_is_a_fault_that_stays_until_recover(self, shared, arm):
        start = arm.state().pose
        thread, results = in_background(lambda: arm.move_to(moved(start, z=0.10), 0.03, 0.5, 90.0))
        wait_for(lambda: arm.state().pose.position_m[2] - start.position_m[2] > 0.003)
        shared.ask(mode="kReflex")
        thread.join(60)
        assert results[0].outcome is MotionOutcome.FAULT, results
        wait_for(lambda: arm.state().mode is ArmMode.REFLEX)
        assert arm.move_to(start, 0.1, 0.5, 10.0).outcome is MotionOutcome.REJECTED
        stood = shared.ask()["position_m"]
        arm.recover()
        wait_for(lambda: arm.state().mode is ArmMode.READY)
        assert math.dist(shared.ask()["position_m"], stood) < 0.002
        assert arm.move_to(start, 0.2, 1.0, 60.0).outcome is MotionOutcome.REACHED

    def test_the_user_stop_cannot_be_recovered_from_here(self, shared, arm):
        shared.ask(mode="kUserStopped")
        wait_for(lambda: arm.state().mode is ArmMode.SAFEGUARD_STOP)
        assert arm.move_to(arm.state().pose, 0.1, 0.5, 10.0).outcome is MotionOutcome.REJECTED
        with pytest.raises(RobotError, match=r"user stop|did not recover"):
            arm.recover()

    def test_a_second_client_is_told_so(self, shared, arm):
        script = (
            "import os, sys\n"
            "from robot_bridge.drivers.franka import FrankaArm\n"
            "from robot_bridge.drivers.franka_options import FrankaOptions\n"
            "try:\n"
            f"    FrankaArm(FrankaOptions('{shared.address}', realtime=False)).connect(2.0)\n"
            "except Exception as error:\n"
            "    print(type(error).__name__, error, flush=True)\n"
            "os._exit(0)\n"
        )
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert second.stdout.startswith("RobotError")
        assert "another client" in second.stdout

    def test_a_wrong_tool_length_is_refused(self, shared):
        pytest.importorskip("franky")
        arm = FrankaArm(FrankaOptions(shared.address, realtime=False, flange_to_tip_m=0.2))
        with pytest.raises(RobotError, match=r"Desk has the end effector at \[-?0\.0000, -?0\.0000, 0\.1034\] m"):
            arm.connect(20.0)
        arm.close()

    def test_the_hand(self, shared, arm):
        hand = GRIPPER_DRIVER.open(FrankaGripperOptions(), arm)
        hand.connect(20.0)
        hand.activate(60.0)
        assert hand.width_range_m == (0.0, pytest.approx(0.08, abs=0.002))
        opened = hand.move(0.06, 0.1, 20.0, 90.0)
        assert opened.width_m == pytest.approx(0.06, abs=0.004)
        closed = hand.move(0.0, 0.1, 20.0, 90.0)
        assert closed.object_sensed is ObjectSensed.NO, "nothing is between the fingers, whatever grasp() says"
        assert closed.width_m < 0.003
        hand.close()


@pytest.mark.realtime
@needs_sim
@pytest.mark.timeout(300)
class TestFrankaArm(ArmContract):
    START = ToolPose(0.42, 0.0, 0.35, 0.0)
    DEADLINE_S = 90.0  # franky-sim runs at a fraction of real time

    @pytest.fixture
    def kept(self):
        """The driver that is connected, if one is: the controller takes one at a time."""
        arms = []
        yield arms
        for arm in arms:
            arm.close()

    @pytest.fixture
    def open_arm(self, shared, kept):
        pytest.importorskip("franky", reason="franky-control is not installed: pip install qtopt[franka]")
        shared.ask(mode="kIdle", force=[0.0] * 6)

        def open_one():
            while kept:
                kept.pop().close()
            kept.append(DRIVER.open(FrankaOptions(shared.address, realtime=False)))
            return kept[0]

        return open_one

    @pytest.fixture
    def unready(self, shared):
        @contextmanager
        def user_stop():
            shared.ask(mode="kUserStopped")
            yield
            shared.ask(mode="kIdle")

        return user_stop


@pytest.mark.realtime
@needs_sim
@pytest.mark.timeout(300)
class TestHand(GripperContract):
    WIDTH_M = 0.004
    SPEED_M_S = 0.1
    DEADLINE_S = 90.0  # franky-sim runs at a fraction of real time

    @pytest.fixture
    def gripper(self, arm):
        hand = GRIPPER_DRIVER.open(FrankaGripperOptions(), arm)
        hand.connect(20.0)
        hand.activate(self.DEADLINE_S)
        yield hand
        hand.close()


@pytest.mark.realtime
@needs_sim
@pytest.mark.timeout(300)
def test_a_killed_client_and_a_frozen_controller():
    controller = Controller("127.31.4.2")
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.robot_bridge.drivers.franka_drive", controller.address],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "moving\n"
        start = controller.ask()["position_m"]
        wait_for(lambda: math.dist(controller.ask()["position_m"], start) > 0.005)
        child.kill()
        child.wait()
        killed = controller.ask()["position_m"]
        wait_for_rest(controller)
        assert math.dist(controller.ask()["position_m"], killed) < 0.02
        arm = FrankaArm(FrankaOptions(controller.address, realtime=False))
        arm.connect(20.0)
        here = arm.state().pose
        thread, results = in_background(lambda: arm.move_to(moved(here, y=-0.2), 0.03, 0.5, 90.0))
        wait_for(lambda: arm.state().pose.position_m[1] < here.position_m[1] - 0.003)
        os.kill(controller.process.pid, signal.SIGSTOP)
        thread.join(30)
        assert results[0].outcome is MotionOutcome.LINK_LOST, results
        assert (time.monotonic_ns() - arm.state().t_host_ns) / 1e9 > 0.5
        refused = arm.move_to(here, 0.1, 0.5, 5.0)
        assert (refused.outcome, "new process" in refused.reason) == (MotionOutcome.REJECTED, True)
        os.kill(controller.process.pid, signal.SIGCONT)
        arm.close()
        arm.close()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        controller.close()


def test_a_quarter_turn_there_and_back():
    assert times(QUARTER, QUARTER_BACK) == pytest.approx((0.0, 0.0, 0.0, 1.0))
    # The hand of a tool that opens along the base's x: its y axis is that x.
    x, y, z, w = times((1.0, 0.0, 0.0, 0.0), QUARTER_BACK)
    assert (2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)) == pytest.approx((1.0, 0.0, 0.0))


def test_the_stop_channel_is_honest():
    channel = DRIVER.open_stop_channel(FrankaOptions("192.0.2.1"))
    channel.connect(1.0)
    assert channel.stop() is False
    with pytest.raises(RobotError, match="one FCI connection"):
        channel.state()


@pytest.mark.parametrize(
    "change", [{"host": ""}, {"collision_force_n": 90.0}, {"contact_force_n": 30.0}, {"speed_limit_m_s": 1.0}]
)
def test_settings_that_cannot_be(change):
    with pytest.raises(ConfigError):
        FrankaOptions(**{"host": "a", **change})
