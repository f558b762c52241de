"""Grasps are honest: friction holds, gravity takes, nothing is tied to anything."""

import numpy as np
import pytest

from qtopt.errors import RobotError
from qtopt.types import Outcome
from robot_bridge import ToolPose
from sim.bullet import bullet
from sim.furniture import BIN_CENTRE_M
from sim.hand import MAX_WIDTH_M

X, Y = BIN_CENTRE_M


@pytest.fixture
def held(cell):
    """A cell whose fingers hold a bar a good way up."""
    body = cell.world.add_object(1, (X, Y, 0.03), (0.0, 0.0, 0.0, 1.0), scale=1.0)
    cell.world.settle(240)
    low, high = (np.array(corner) for corner in bullet.getAABB(body, physicsClientId=cell.world.client))
    middle, size = (low + high) / 2, high - low
    yaw = 0.0 if size[0] < size[1] else np.pi / 2
    cell.robot.move(ToolPose(float(middle[0]), float(middle[1]), 0.15, yaw))
    cell.robot.move(ToolPose(float(middle[0]), float(middle[1]), 0.01, yaw))
    cell.robot.grip(close=True)
    cell.robot.move(ToolPose(float(middle[0]), float(middle[1]), 0.2, yaw))
    assert cell.detector.judge() is True
    return cell, body


def test_the_only_constraint_couples_the_two_fingers(held):
    cell, _ = held
    client = cell.world.client
    assert bullet.getNumConstraints(physicsClientId=client) == 1
    info = bullet.getConstraintInfo(bullet.getConstraintUniqueId(0, physicsClientId=client), physicsClientId=client)
    assert (info[0], info[2]) == (cell.hand.body, cell.hand.body)


def test_a_held_object_follows_and_falls_when_released(held):
    cell, body = held
    assert cell.world.position(body)[2] > 0.15
    assert cell.robot.state().gripper_width_m > 0.01
    cell.robot.grip(close=False)
    cell.world.settle(240)
    assert cell.world.position(body)[2] < 0.08
    assert cell.detector.judge() is False


def test_without_friction_nothing_is_held(held):
    cell, body = held
    client = cell.world.client
    for finger in (4, 5):
        bullet.changeDynamics(cell.hand.body, finger, lateralFriction=0.0, spinningFriction=0.0, physicsClientId=client)
    assert cell.detector.judge() is False
    assert cell.world.position(body)[2] < 0.15


def test_a_lifted_object_is_taken_away(held):
    cell, body = held
    cell.keeper.finish(Outcome.SUCCESS)
    assert body not in cell.world.objects
    assert bullet.getNumBodies(physicsClientId=cell.world.client) > 0


def test_a_descent_onto_an_object_stops_there(cell):
    body = cell.world.add_object(1, (X, Y, 0.03), (0.0, 0.0, 0.0, 1.0), scale=1.0)
    cell.world.settle(240)
    low, high = (np.array(corner) for corner in bullet.getAABB(body, physicsClientId=cell.world.client))
    finger = MAX_WIDTH_M / 2 + 0.005
    middle = (low + high) / 2
    cell.robot.move(ToolPose(float(middle[0]) - finger, float(middle[1]), 0.2, 0.0))
    reached = cell.robot.move(ToolPose(float(middle[0]) - finger, float(middle[1]), 0.005, 0.0))
    assert reached.z_m > 0.5 * float(high[2])


def test_free_motion_costs_no_physics_and_ends_where_driven_motion_ends(cell):
    goal = ToolPose(X + 0.05, Y - 0.03, 0.12, 0.7)
    cell.world.refresh()
    cell.hand.place(ToolPose(X, Y, 0.2, 0.0), MAX_WIDTH_M)
    steps = cell.world.steps
    free = cell.robot.move(goal)
    assert cell.world.steps == steps
    cell.hand.place(ToolPose(X, Y, 0.2, 0.0), MAX_WIDTH_M)
    cell.hand.move(goal, holding=True)
    assert cell.world.steps > steps
    np.testing.assert_allclose(cell.hand.pose().array(), free.array(), atol=3e-3)


def test_fingers_meet_when_nothing_is_between_them(cell):
    cell.robot.grip(close=True)
    assert cell.robot.state().gripper_width_m < 1e-3
    cell.robot.grip(close=False)
    assert cell.robot.state().gripper_width_m == pytest.approx(MAX_WIDTH_M, abs=2e-3)


def test_sleeping_objects_stay_put_until_touched(cell):
    body = cell.world.add_object(1, (X, Y, 0.03), (0.0, 0.0, 0.0, 1.0), scale=1.0)
    cell.world.settle(240)
    before = np.array(cell.world.position(body))
    cell.world.step(60)
    np.testing.assert_allclose(cell.world.position(body), before, atol=1e-6)
    cell.hand.place(ToolPose(X - 0.13, Y, 0.012, 0.0), 0.0)
    cell.hand.closed = True
    cell.hand.move(ToolPose(X, Y, 0.012, 0.0), holding=True)
    assert cell.world.position(body)[0] > before[0] + 0.02


def test_out_of_reach_is_an_error(cell):
    with pytest.raises(RobotError, match="reach"):
        cell.robot.move(ToolPose(1.5, 0.0, 0.1, 0.0))


def test_a_closed_arm_says_so(cell):
    cell.robot.close()
    with pytest.raises(RobotError, match="closed"):
        cell.robot.move(ToolPose(X, Y, 0.1, 0.0))
