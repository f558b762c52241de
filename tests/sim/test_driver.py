"""Driver number 0 keeps the contracts."""

import threading
import time

import numpy as np
import pytest

from qtopt.errors import ConfigError, RobotError, StaleFrame
from robot_bridge import ToolPose
from robot_bridge.contracts import ArmMode, Capability, MotionOutcome, ObjectSensed, Pose
from robot_bridge.displacement import to_pose
from sim import SimConfig
from sim.driver import ARM, SimArmOptions
from sim.driver_camera import CAMERA, PlantCameraOptions
from sim.driver_gripper import GRIPPER, SimGripperOptions

pytestmark = pytest.mark.realtime
HIGH = ToolPose(0.6, 0.0, 0.25, 0.0)


@pytest.fixture
def arm():
    arm = ARM.open(SimArmOptions(cell=SimConfig(object_count=(1, 1))))
    arm.connect(5.0)
    yield arm
    arm.close()


def wait(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_motion_is_reached_and_reported(arm):
    result = arm.move_to(to_pose(HIGH), 0.25, 1.0, 20.0)
    assert result.outcome is MotionOutcome.REACHED
    np.testing.assert_allclose(result.pose.position_m, (0.6, 0.0, 0.25), atol=2e-3)
    state = arm.state()
    assert (state.mode, state.is_finite(), len(state.joints_rad)) == (ArmMode.READY, True, 7)


def test_a_stop_from_another_thread_and_a_deadline_end_a_motion(arm):
    threading.Timer(0.4, arm.stop, (2.0,)).start()
    result = arm.move_to(to_pose(ToolPose(0.6, 0.0, 0.1, 0.0)), 0.1, 1.0, 20.0)
    assert result.outcome is MotionOutcome.STOPPED
    assert arm.state().mode is ArmMode.READY
    result = arm.move_to(to_pose(ToolPose(0.6, 0.0, 0.1, 0.0)), 0.02, 1.0, 0.3)
    assert result.outcome is MotionOutcome.TIMEOUT
    assert arm.state().mode is ArmMode.READY


def test_what_cannot_be_is_rejected_without_motion(arm):
    far = arm.move_to(to_pose(ToolPose(1.5, 0.0, 0.1, 0.0)), 0.1, 1.0, 5.0)
    leaning = arm.move_to(Pose((0.6, 0.0, 0.2), (0.0, 0.0, 0.0, 1.0)), 0.1, 1.0, 5.0)
    joints = arm.move_joints((0.0,) * 7, 0.1, 5.0)
    assert [each.outcome for each in (far, leaning, joints)] == [MotionOutcome.REJECTED] * 3
    assert Capability.JOINT_MOVE not in arm.capabilities
    assert arm.state().mode is ArmMode.READY


def test_targets_that_run_dry_are_a_standstill(arm):
    arm.servo(to_pose(ToolPose(0.6, 0.0, 0.1, 0.0)), 0.3)
    wait(lambda: arm.state().mode is ArmMode.MOVING)
    wait(lambda: arm.state().mode is ArmMode.READY)
    assert arm.state().pose.position_m[2] > 0.12


def test_the_table_is_felt_as_contact(arm):
    result = arm.move_to(to_pose(ToolPose(0.756, 0.0, 0.02, np.pi / 2)), 0.2, 1.0, 20.0)
    assert result.outcome is MotionOutcome.CONTACT


def test_empty_fingers_meet_and_say_so(arm):
    gripper = GRIPPER.open(SimGripperOptions(), arm)
    gripper.connect(1.0)
    state = gripper.move(0.0, 0.2, 20.0, 10.0)
    assert (state.width_m < 2e-3, state.object_sensed) == (True, ObjectSensed.NO)
    assert gripper.move(0.08, 0.2, 20.0, 10.0).width_m == pytest.approx(0.08, abs=2e-3)
    with pytest.raises(RobotError, match="still move"):
        gripper.move(0.0, 0.01, 20.0, 0.1)


def test_a_gripper_of_another_arm_is_refused():
    with pytest.raises(ConfigError, match="belongs to the simulated arm"):
        GRIPPER.open(SimGripperOptions(), object())


def test_frames_are_new_and_numbered(arm):
    camera = CAMERA.open(PlantCameraOptions(fps=20.0))
    camera.start(5.0)
    first = camera.latest(5.0)
    second = camera.latest(5.0, not_before_ns=time.monotonic_ns())
    assert second.sequence > first.sequence
    assert second.t_capture_ns <= second.t_receive_ns
    assert first.settings_hash == second.settings_hash
    with pytest.raises(StaleFrame):
        camera.latest(0.05, not_before_ns=time.monotonic_ns() + int(60e9))
    camera.stop()
    camera.stop()


def test_the_stop_channel_shares_the_plant(arm):
    channel = ARM.open_stop_channel(SimArmOptions())
    channel.connect(1.0)
    result = []
    thread = threading.Thread(
        target=lambda: result.append(arm.move_to(to_pose(ToolPose(0.6, 0.0, 0.1, 0.0)), 0.05, 1.0, 20.0))
    )
    thread.start()
    wait(lambda: channel.state().mode is ArmMode.MOVING)
    assert channel.stop()
    thread.join(10.0)
    assert result[0].outcome is MotionOutcome.STOPPED
    channel.close()


def test_without_an_arm_there_is_nothing_to_stop_or_see():
    with pytest.raises(RobotError, match="connect the arm first"):
        ARM.open_stop_channel(SimArmOptions(name="nobody")).connect(1.0)
    with pytest.raises(RobotError, match="connect it first"):
        CAMERA.open(PlantCameraOptions(name="nobody")).start(1.0)
