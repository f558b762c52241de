"""How fast a UR's straight motion may be that also turns."""

import math

import pytest

from robot_bridge.contracts import Pose
from robot_bridge.displacement import to_pose
from robot_bridge.drivers.rotvec import speed_within_turn
from robot_bridge.robot import ToolPose

START = to_pose(ToolPose(0.5, 0.0, 0.3, 0.2))


@pytest.mark.parametrize(
    ("distance_m", "turn_rad", "speed_m_s", "expected_m_s"),
    [
        (0.1, 0.0, 0.25, 0.25),
        (0.0, 0.0, 0.25, 0.2),
        (0.0, 1.0, 0.25, 0.2),  # four radians a second for each metre a second
        (0.0, 1.0, 0.05, 0.05),
        (0.1, 1.0, 0.25, 0.2),
        (0.5, 1.0, 0.25, 0.25),  # it takes longer than the turn
        (0.5, 1.0, 0.5, 0.4),
    ],
)
def test_no_straight_motion_turns_faster_than_allowed(distance_m, turn_rad, speed_m_s, expected_m_s):
    target = to_pose(ToolPose(0.5 + distance_m, 0.0, 0.3, 0.2 + turn_rad))
    for end in (target, Pose(target.position_m, tuple(-each for each in target.quaternion_xyzw))):
        assert speed_within_turn(START, end, speed_m_s, 0.8) == pytest.approx(expected_m_s)
    seconds = max(distance_m / expected_m_s, turn_rad / (4 * expected_m_s))
    assert turn_rad <= 0.8 * seconds * (1 + 1e-9) or math.isclose(turn_rad, 0.0)
