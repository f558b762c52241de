"""What the Franka driver looks at before it moves arm or hand; franky itself is not needed for that."""

import math
import sys
from types import SimpleNamespace

import pytest

from qtopt.errors import RobotError
from robot_bridge.contracts import ObjectSensed
from robot_bridge.drivers.franka import FrankaArm
from robot_bridge.drivers.franka_frames import misplaced, times
from robot_bridge.drivers.franka_gripper import FrankaGripper, FrankaGripperOptions
from robot_bridge.drivers.franka_options import FrankaOptions
from tests.robot_bridge.drivers.franky_fake import HAND, Hand, end_effector, franky

TIP_M, TURN_RAD = 0.1034, -math.pi / 4


def turned(axis, angle_rad):
    """Returns the hand's standard turn after another about one of the flange's axes."""
    turn = [0.0, 0.0, 0.0, math.cos(angle_rad / 2)]
    turn[axis] = math.sin(angle_rad / 2)
    return times(tuple(turn), HAND)


class TestEndEffector:
    @pytest.mark.parametrize(
        ("position_m", "quaternion"),
        [
            ((0.0, 0.0, TIP_M), HAND),
            ((0.0, 0.0, TIP_M), tuple(-each for each in HAND)),  # the same turn
            ((0.0005, -0.0005, TIP_M + 0.0005), turned(0, 0.005)),
        ],
    )
    def test_the_standard_of_desk_fits(self, position_m, quaternion):
        assert misplaced(end_effector(position_m, quaternion), TIP_M, TURN_RAD) == ""

    @pytest.mark.parametrize(
        "bad_m", [(0.02, 0.0, TIP_M), (0.0, -0.02, TIP_M), (0.0, 0.0, 0.2), (0.0, math.nan, TIP_M)]
    )
    def test_a_place_that_differs_along_any_axis_is_told(self, bad_m):
        assert "flange_to_tip_m" in misplaced(end_effector(bad_m), TIP_M, TURN_RAD)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_turn_about_any_axis_is_told(self, axis):
        assert "-45.0 degrees" in misplaced(end_effector(quaternion_xyzw=turned(axis, 0.05)), TIP_M, TURN_RAD)

    @pytest.mark.parametrize("quaternion", [(0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, math.nan, 1.0)])
    def test_a_hand_that_is_not_turned_as_it_is_mounted_is_told(self, quaternion):
        assert misplaced(end_effector(quaternion_xyzw=quaternion), TIP_M, TURN_RAD)

    def test_another_tool_has_another_turn(self):
        assert misplaced(end_effector((0.0, 0.0, 0.2), (0.0, 0.0, 0.0, 1.0)), 0.2, 0.0) == ""

    def test_an_arm_that_is_set_up_otherwise_is_not_connected(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "franky", franky())
        arm = FrankaArm(FrankaOptions("192.0.2.1"))
        tilted = end_effector(quaternion_xyzw=turned(1, 0.2))
        robot = SimpleNamespace(state=SimpleNamespace(F_T_EE=tilted), set_collision_behavior=lambda *_: None)
        monkeypatch.setattr(arm, "_open", lambda deadline_s: robot)
        with pytest.raises(RobotError, match="set the end effector in Desk"):
            arm.connect(1.0)


class TestHand:
    @pytest.fixture
    def open_hand(self, monkeypatch):
        def open_hand(**how):
            hand = Hand(**how)
            monkeypatch.setitem(sys.modules, "franky", franky(hand))
            gripper = FrankaGripper(FrankaGripperOptions(), "192.0.2.1")
            gripper.connect(1.0)
            return gripper, hand

        return open_hand

    @pytest.mark.parametrize("told_m", [0.0, math.nan, 1e-4])
    @pytest.mark.parametrize("width_m", [0.0, 0.08])
    def test_fingers_that_were_not_homed_are_not_moved(self, open_hand, told_m, width_m):
        gripper, hand = open_hand(max_width_m=told_m)
        assert gripper.width_range_m == (0.0, 0.0)
        with pytest.raises(RobotError, match=r"call activate\(\) first"):
            gripper.move(width_m, 0.1, 20.0, 5.0)
        assert hand.orders == []
        assert gripper.state().object_sensed is ObjectSensed.UNKNOWN

    def test_activating_homes_them_once(self, open_hand):
        gripper, hand = open_hand()
        gripper.activate(5.0)
        gripper.activate(5.0)
        assert gripper.width_range_m == (0.0, 0.08)
        assert gripper.move(0.08, 0.1, 20.0, 5.0).width_m == 0.08
        assert hand.orders == ["homing", ("move", 0.08)]

    def test_those_that_were_homed_before_are_not_homed_again(self, open_hand):
        gripper, hand = open_hand(max_width_m=0.079)
        gripper.activate(5.0)
        assert (gripper.width_range_m, hand.orders) == ((0.0, 0.079), [])

    @pytest.mark.parametrize("how", [{"found_m": 0.0}, {"homes": False}, {"homes": None}])
    def test_homing_that_finds_nothing_is_an_error_and_leaves_them_unmoved(self, open_hand, how):
        gripper, hand = open_hand(**how)
        with pytest.raises(RobotError, match="homing"):
            gripper.activate(0.0)
        before = list(hand.orders)
        with pytest.raises(RobotError, match="activate"):
            gripper.move(0.05, 0.1, 20.0, 5.0)
        assert hand.orders == before
