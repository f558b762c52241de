"""From action to target pose: by hand, and for any action at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.errors import RobotError
from qtopt.specs import ACTION_SPEC, make_action
from robot_bridge import MotionLimits, ToolPose
from robot_bridge.displacement import fold_yaw, limit_action

LIMITS = MotionLimits()
HERE = ToolPose(0.6, 0.0, 0.1, 0.0)
number = st.floats(-10, 10, width=32)


def test_by_hand():
    executed, target = limit_action(make_action((0.02, -0.03, 0.2), 0.5, close=True), HERE, LIMITS)
    np.testing.assert_allclose(executed, make_action((0.02, -0.03, 0.1), 0.5, close=True), atol=1e-6)
    np.testing.assert_allclose(target.array(), [0.62, -0.03, 0.2, 0.5], atol=1e-6)


def test_the_workspace_cuts_the_displacement():
    at_edge = ToolPose(LIMITS.high_m[0] - 0.01, 0.0, LIMITS.low_m[2] + 0.02, 0.0)
    executed, target = limit_action(make_action((0.05, 0.0, -0.1)), at_edge, LIMITS)
    np.testing.assert_allclose(executed[:3], [0.01, 0.0, -0.02], atol=1e-6)
    assert (target.x_m, target.z_m) == pytest.approx((LIMITS.high_m[0], LIMITS.low_m[2]))


def test_beyond_its_range_the_azimuth_turns_back_by_half():
    executed, target = limit_action(make_action(yaw_rad=1.0), ToolPose(0.6, 0.0, 0.1, 2.0), LIMITS)
    assert np.arctan2(executed[3], executed[4]) == pytest.approx(1.0)
    assert target.yaw_rad == pytest.approx(3.0 - np.pi)


def test_a_rotation_of_length_zero_is_no_rotation():
    action = make_action()
    action[3:5] = 0.0
    _, target = limit_action(action, HERE, LIMITS)
    assert target == HERE


@given(
    action=st.lists(number, min_size=8, max_size=8),
    pose=st.tuples(st.floats(0.4, 0.8), st.floats(-0.2, 0.2), st.floats(0.0, 0.3), st.floats(-2.6, 2.6)),
)
def test_every_target_lies_within_every_limit(action, pose):
    tool = ToolPose(*pose)
    executed, target = limit_action(np.array(action, np.float32), tool, LIMITS)
    ACTION_SPEC.validate(executed)
    moved = np.array([target.x_m - tool.x_m, target.y_m - tool.y_m, target.z_m - tool.z_m])
    assert np.all(np.abs(moved) <= np.array([0.08, 0.08, 0.10]) + 1e-9)
    np.testing.assert_allclose(executed[:3], moved, atol=1e-6)
    assert abs(target.yaw_rad) <= LIMITS.yaw_rad + 1e-9
    assert not (executed[5] and executed[6])
    if executed[7]:
        assert target == tool
    else:
        for value, start, low, high in zip(
            (target.x_m, target.y_m, target.z_m), pose[:3], LIMITS.low_m, LIMITS.high_m, strict=True
        ):
            assert low - 1e-9 <= value <= high + 1e-9 or abs(value - np.clip(value, low, high)) < abs(
                start - np.clip(start, low, high)
            )


@given(yaw=st.floats(-20, 20))
def test_folding_keeps_the_grasp(yaw):
    folded = fold_yaw(yaw, LIMITS.yaw_rad)
    assert abs(folded) <= LIMITS.yaw_rad
    assert abs(np.sin(folded - yaw)) < 1e-6


@pytest.mark.parametrize("action", [np.zeros(7, np.float32), np.full(8, np.inf, np.float32)])
def test_what_is_no_action_is_refused(action):
    with pytest.raises(RobotError, match="not moved"):
        limit_action(action, HERE, LIMITS)
