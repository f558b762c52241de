"""The SO-101 driver on six simulated servos behind a real serial line (a pty): motion, stops, obstacles, faults."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.errors import ConfigError, RobotError
from robot_bridge.contracts import ArmMode, Capability, MotionOutcome, ObjectSensed, Pose
from robot_bridge.drivers.so101 import DRIVER, GRIPPER_DRIVER, So101Arm
from robot_bridge.drivers.so101_geometry import Geometry, Tool, forward, inverse, tilt_rad, to_tool
from robot_bridge.drivers.so101_gripper import So101GripperOptions
from robot_bridge.drivers.so101_motions import JointMotion, LineMotion
from robot_bridge.drivers.so101_options import So101Options, load_calibration
from tests.robot_bridge.drivers.so101_cell import HOME_RAD, JAWS, Servos, make_cell

GEOMETRY = Geometry()
DOWN = (1.0, 0.0, 0.0, 0.0)


def shifted(pose, x=0.0, y=0.0, z=0.0):
    a, b, c = pose.position_m
    return Pose((a + x, b + y, c + z), DOWN)


class TestGeometry:
    def test_the_stretched_arm_by_hand(self):
        pose = forward(GEOMETRY, (0.0, 0.0, 0.0, 0.0, 0.0))
        np.testing.assert_allclose(pose.position_m, (0.0388 + 0.0304 + 0.116 + 0.135 + 0.1592, 0.0, 0.1166), atol=1e-12)
        assert tilt_rad(pose) == pytest.approx(math.pi / 2)

    def test_the_right_angle_by_hand(self):
        pose = forward(GEOMETRY, (math.pi / 2, math.pi / 2, -math.pi / 2, -math.pi / 2, 0.3))
        np.testing.assert_allclose(pose.position_m, (0.0388, 0.0304 + 0.135, 0.1166 + 0.116 - 0.1592), atol=1e-12)
        assert tilt_rad(pose) == pytest.approx(0.0, abs=1e-7)
        assert to_tool(pose).yaw_rad == pytest.approx(math.pi / 2 + 0.3)

    @given(
        st.floats(0.10, 0.25), st.floats(-1.5, 1.5), st.floats(-0.05, 0.12), st.floats(-3.0, 3.0), st.floats(-3.0, 3.0)
    )
    def test_inverse_undoes_forward(self, radius, pan, z, yaw, near):
        tool = Tool(GEOMETRY.pan_x_m + radius * math.cos(pan), radius * math.sin(pan), z, yaw)
        joints = inverse(GEOMETRY, tool, near)
        if joints is None:
            return
        pose = forward(GEOMETRY, joints)
        np.testing.assert_allclose(pose.position_m, (tool.x_m, tool.y_m, tool.z_m), atol=1e-9)
        assert tilt_rad(pose) < 1e-6
        assert abs(math.remainder(to_tool(pose).yaw_rad - yaw, 2 * math.pi)) < 1e-9
        assert abs(joints[4] - near) <= math.pi + 1e-9
        assert joints[2] <= 0.0, "elbow up"

    @pytest.mark.parametrize("tool", [Tool(0.6, 0.0, 0.1, 0.0), Tool(0.05, 0.0, 0.1, 0.0), Tool(0.2, 0.0, 0.5, 0.0)])
    def test_out_of_reach(self, tool):
        assert inverse(GEOMETRY, tool) is None


def tool_speeds(motion, dt_s=0.01):
    places = []
    while (joints := motion.step(dt_s)) is not None:
        places.append(forward(GEOMETRY, joints).position_m)
    return np.linalg.norm(np.diff(places, axis=0), axis=1) / dt_s, places


class TestMotions:
    def test_a_line_is_straight_and_keeps_its_speed(self):
        start, end = Tool(0.22, -0.05, 0.05, 0.0), Tool(0.24, 0.08, 0.02, 0.5)
        motion = LineMotion(GEOMETRY, start, end, 0.10, 0.5, 0.8)
        assert motion.check(lambda _: True, 0.0) == ""
        speeds, places = tool_speeds(motion)
        assert speeds.max() < 0.1001
        np.testing.assert_allclose(places[-1], (0.24, 0.08, 0.02), atol=1e-6)
        way = np.subtract(places[-1], places[0])
        aside = np.linalg.norm(np.cross(np.subtract(places, places[0]), way), axis=1) / np.linalg.norm(way)
        assert aside.max() < 1e-6

    def test_a_braked_line_stays_on_itself_and_ends_early(self):
        motion = LineMotion(GEOMETRY, Tool(0.22, -0.1, 0.05, 0.0), Tool(0.22, 0.1, 0.05, 0.0), 0.10, 0.5, 0.8)
        for _ in range(50):
            motion.step(0.01)
        before = forward(GEOMETRY, motion.step(0.01)).position_m
        motion.brake(0.5)
        speeds, places = tool_speeds(motion)
        assert 0.005 < places[-1][1] - before[1] < 0.0125, "v squared over twice the deceleration is 10 mm"
        assert np.all(np.diff(speeds) < 1e-9)

    @given(st.lists(st.floats(-1.2, 1.2), min_size=10, max_size=10))
    def test_a_joint_motion_keeps_the_tool_below_the_cap(self, numbers):
        speeds, _ = tool_speeds(JointMotion(GEOMETRY, tuple(numbers[:5]), tuple(numbers[5:]), 3.0, 0.10), 0.02)
        assert np.all(speeds < 0.103)


@pytest.fixture(scope="module")
def servos():
    """A bus; each test puts servos of its own on it."""
    servos = Servos()
    yield servos
    servos.close()


@pytest.fixture
def cell(servos, tmp_path):
    """Servos and a connected arm."""
    arm = DRIVER.open(make_cell(servos, tmp_path))
    arm.connect(5.0)
    yield servos, arm
    arm.close()


def in_background(call):
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    return thread, results


def wait_for(condition, seconds=10.0):
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


@pytest.mark.realtime
class TestArm:
    def test_connecting_moves_nothing_and_holds(self, servos, tmp_path):
        arm = So101Arm(make_cell(servos, tmp_path))
        before = servos.ask()
        assert not any(before["torque"])
        arm.connect(5.0)
        try:
            time.sleep(0.2)
            after = servos.ask()
            assert all(after["torque"])
            assert after["positions"] == before["positions"]
            assert arm.state().mode is ArmMode.READY
            np.testing.assert_allclose(arm.state().joints_rad, HOME_RAD, atol=1e-3)
            assert arm.capabilities.isdisjoint(
                {Capability.STOP_STATUS, Capability.CONTROLLER_WATCHDOG, Capability.WRENCH_ESTIMATED}
            )
        finally:
            arm.close()
        assert all(servos.ask()["torque"]), "it goes on holding"

    def test_a_line_is_reached_in_the_servos_themselves(self, cell):
        servos, arm = cell
        start = arm.state().pose
        target = shifted(start, 0.01, 0.04, -0.02)
        result = arm.move_to(target, 0.25, 0.5, 20.0)
        assert result.outcome is MotionOutcome.REACHED, result
        assert math.dist(result.pose.position_m, target.position_m) < 0.002
        calibration = load_calibration(arm._options.calibration_file)
        truth = forward(GEOMETRY, calibration.angles_rad(tuple(round(at) for at in servos.ask()["positions"])))
        assert math.dist(truth.position_m, target.position_m) < 0.002
        assert tilt_rad(truth) < 0.02

    def test_what_is_rejected_moves_nothing(self, cell):
        servos, arm = cell
        before, start = servos.ask()["positions"], arm.state().pose
        tilted = Pose(start.position_m, (math.cos(0.2), 0.0, math.sin(0.2), 0.0))
        for target, word in (
            (shifted(start, 0.4), "reach"),
            (shifted(start, z=-0.5), "reach"),
            (tilted, "tilts"),
            (Pose(start.position_m, (math.cos(1.4), math.sin(1.4), 0.0, 0.0)), "limits"),
        ):
            result = arm.move_to(target, 0.1, 0.5, 5.0)
            assert result.outcome is MotionOutcome.REJECTED
            assert word in result.reason
        assert arm.servo(shifted(start, 0.4), 0.1).outcome is MotionOutcome.REJECTED
        assert arm.move_joints((0.0,) * 4, 0.5, 5.0).outcome is MotionOutcome.REJECTED
        assert arm.move_joints((3.0,) * 5, 0.5, 5.0).outcome is MotionOutcome.REJECTED
        assert servos.ask()["positions"] == before

    def test_joints_bring_a_tilted_tool_home(self, servos, tmp_path):
        arm = So101Arm(make_cell(servos, tmp_path, (0.0, 1.2, -1.5, -0.6, 0.0)))
        arm.connect(5.0)
        try:
            refused = arm.move_to(shifted(arm.state().pose, y=0.01), 0.1, 0.5, 5.0)
            assert (refused.outcome, "upright by hand" in refused.reason) == (MotionOutcome.REJECTED, True)
            assert arm.move_joints(HOME_RAD, 0.8, 30.0).outcome is MotionOutcome.REACHED
            assert arm.move_to(shifted(arm.state().pose, y=0.01), 0.1, 0.5, 10.0).outcome is MotionOutcome.REACHED
        finally:
            arm.close()

    @pytest.mark.parametrize("how", ["stop", "hold"])
    def test_stop_and_hold_end_a_motion(self, cell, how):
        _, arm = cell
        start = arm.state().pose
        thread, results = in_background(lambda: arm.move_to(shifted(start, y=0.10), 0.05, 0.5, 30.0))
        wait_for(lambda: arm.state().pose.position_m[1] > start.position_m[1] + 0.02)
        at = arm.state().pose.position_m[1]
        if how == "stop":
            arm.stop(2.0)
        else:
            arm.hold()
        thread.join(10)
        assert results[0].outcome is MotionOutcome.STOPPED
        assert results[0].pose.position_m[1] - at < 0.012
        assert arm.move_to(start, 0.1, 0.5, 20.0).outcome is MotionOutcome.REACHED

    def test_a_deadline_stops_it(self, cell):
        _, arm = cell
        start = arm.state().pose
        result = arm.move_to(shifted(start, y=0.10), 0.02, 0.5, 0.5)
        assert result.outcome is MotionOutcome.TIMEOUT
        assert result.pose.position_m[1] < start.position_m[1] + 0.05

    def test_a_stream_is_followed_and_ends_when_it_ends(self, cell):
        servos, arm = cell
        start = arm.state().pose
        for index in range(60):
            assert arm.servo(shifted(start, y=0.0005 * index), 0.3).outcome is MotionOutcome.REACHED
            time.sleep(0.01)
        arm.servo(shifted(start, y=0.09), 0.3)
        wait_for(lambda: arm.state().mode is ArmMode.READY)
        first = servos.ask()["positions"]
        time.sleep(0.2)
        assert servos.ask()["positions"] == pytest.approx(first, abs=2.0), "but for the lag behind the last goal"
        assert 0.02 < arm.state().pose.position_m[1] - start.position_m[1] < 0.08

    def test_an_obstacle_is_contact_and_not_pushed_at(self, cell):
        servos, arm = cell
        at = servos.ask()["positions"][0]
        servos.ask(block=[1, at - 60, at + 60])
        start = arm.state().pose
        result = arm.move_to(shifted(start, y=0.12), 0.08, 0.5, 20.0)
        assert result.outcome is MotionOutcome.CONTACT, result
        time.sleep(0.3)
        assert abs(servos.ask()["loads"][0]) < 0.02

    def test_a_servos_fault_ends_the_motion_and_stays_until_recover(self, cell):
        servos, arm = cell
        start = arm.state().pose
        thread, results = in_background(lambda: arm.move_to(shifted(start, y=0.10), 0.03, 0.5, 30.0))
        wait_for(lambda: arm.state().mode is ArmMode.MOVING)
        servos.ask(fault=[3, 32])
        thread.join(10)
        assert (results[0].outcome, "OVERLOAD" in results[0].reason) == (MotionOutcome.FAULT, True)
        assert arm.state().mode is ArmMode.FAULT
        assert arm.move_to(start, 0.1, 0.5, 5.0).outcome is MotionOutcome.REJECTED
        with pytest.raises(RobotError, match="still at fault"):
            arm.recover()
        servos.ask(fault=[3, 0])
        before = servos.ask()["positions"]
        arm.recover()
        assert servos.ask()["positions"] == pytest.approx(before, abs=1.5)
        assert arm.move_to(start, 0.1, 0.5, 20.0).outcome is MotionOutcome.REACHED

    def test_a_few_damaged_replies_do_nothing(self, cell):
        servos, arm = cell
        start = arm.state().pose
        thread, results = in_background(lambda: arm.move_to(shifted(start, y=0.05), 0.05, 0.5, 30.0))
        for _ in range(5):
            servos.ask(damage=2)
            time.sleep(0.15)
        thread.join(20)
        assert results[0].outcome is MotionOutcome.REACHED

    @pytest.mark.parametrize("order", [{"silent": True}, {"mute": 4}])
    def test_silence_is_a_lost_link_for_good(self, cell, order):
        servos, arm = cell
        start = arm.state().pose
        thread, results = in_background(lambda: arm.move_to(shifted(start, y=0.10), 0.03, 0.5, 30.0))
        wait_for(lambda: arm.state().pose.position_m[1] > start.position_m[1] + 0.01)
        servos.ask(**order)
        thread.join(10)
        assert results[0].outcome is MotionOutcome.LINK_LOST
        assert results[0].pose is None
        assert arm.state().mode is ArmMode.OFFLINE
        assert (time.monotonic_ns() - arm.state().t_host_ns) / 1e9 > 0.2
        servos.ask(silent=False)
        assert arm.move_to(start, 0.1, 0.5, 5.0).outcome is MotionOutcome.REJECTED
        arm.stop(2.0)

    def test_a_missing_servo_is_named(self, servos, tmp_path):
        options = make_cell(servos, tmp_path)
        servos.ask(mute=4)
        with pytest.raises(RobotError, match="servo 4 did not answer"):
            So101Arm(options).connect(5.0)

    def test_a_killed_process_leaves_the_arm_standing(self, servos, tmp_path):
        options = make_cell(servos, tmp_path)
        command = [
            sys.executable, "-m", "tests.robot_bridge.drivers.so101_drive", options.port, str(options.calibration_file)
        ]  # fmt: skip
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout.readline() == "moving\n"
            start = servos.ask()["positions"][0]
            wait_for(lambda: abs(servos.ask()["positions"][0] - start) > 20)
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            killed = servos.ask()["positions"]
            time.sleep(0.5)
            stood = servos.ask()
            assert stood["positions"] == pytest.approx(killed, abs=12), "some 3 mm at the tool"
            assert max(abs(speed) for speed in stood["velocities"]) < 1e-3
            assert all(stood["torque"])
        finally:
            child.kill()
            child.wait()
            child.stdout.close()


@pytest.mark.realtime
class TestGripper:
    def test_opens_closes_and_feels(self, cell):
        servos, arm = cell
        gripper = GRIPPER_DRIVER.open(So101GripperOptions(), arm)
        gripper.connect(5.0)
        gripper.activate(5.0)
        assert gripper.width_range_m == (0.0, 0.08)
        state = gripper.move(0.08, 0.1, 10.0, 10.0)
        assert state.width_m == pytest.approx(0.08, abs=0.003)
        assert gripper.move(0.0, 0.1, 10.0, 10.0).object_sensed is ObjectSensed.NO
        gripper.move(0.08, 0.1, 10.0, 10.0)
        servos.ask(block=[6, 1950, 4095])
        held = gripper.move(0.0, 0.1, 10.0, 10.0)
        assert held.object_sensed is ObjectSensed.YES
        assert held.width_m == pytest.approx(0.08 * (1950 - 1500) / (2700 - 1500), abs=0.002)
        time.sleep(1.5)
        assert 0.02 < abs(servos.ask()["loads"][5]) < 0.33, "it holds on, but not with all it has"
        arm.recover()
        assert abs(servos.ask()["loads"][5]) > 0.02, "recovering does not drop what is held"
        servos.ask(block=[6, 1900, 2000])
        with pytest.raises(RobotError, match="blocked from opening"):
            gripper.move(0.08, 0.1, 10.0, 10.0)
        servos.ask(fault=[6, 4])
        wait_for(lambda: any(arm.state().codes.values()))
        with pytest.raises(RobotError, match="TEMPERATURE"):
            gripper.state()

    def test_only_on_its_own_arm(self):
        with pytest.raises(RobotError, match="arm's own bus"):
            GRIPPER_DRIVER.open(So101GripperOptions(), object())


def test_the_stop_channel_is_honest(tmp_path):
    channel = DRIVER.open_stop_channel(So101Options("/dev/null", tmp_path / "none"))
    channel.connect(1.0)
    assert channel.stop() is False
    with pytest.raises(RobotError, match="one master"):
        channel.state()
    channel.close()


def test_bad_calibrations_are_named(tmp_path):
    path = tmp_path / "calibration.json"
    with pytest.raises(ConfigError, match="how to make one"):
        load_calibration(path)
    joint = {"servo": 1, "zero_steps": 2048, "direction": 1, "low_steps": 600, "high_steps": 3500}
    names = ("pan", "lift", "elbow", "flex", "roll")
    good = {**{name: {**joint, "servo": index + 1} for index, name in enumerate(names)}, "gripper": JAWS}
    for change in (
        {"pan": {**joint, "direction": 2}},
        {"pan": {**joint, "high_steps": 5000}},
        {"lift": joint},
        {"gripper": {**JAWS, "open_steps": 1510}},
        {"hand": joint},
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(ConfigError):
            load_calibration(path)
    path.write_text(json.dumps(good))
    assert load_calibration(path).servos == (1, 2, 3, 4, 5, 6)
