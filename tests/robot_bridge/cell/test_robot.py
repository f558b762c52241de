"""What becomes of a step that touches something, with processes that answer as a test says."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from qtopt.errors import RobotError
from robot_bridge.cell.robot import CellRobot
from robot_bridge.contracts import ArmMode, ArmState
from robot_bridge.displacement import to_pose, to_tool
from robot_bridge.robot import ToolPose
from tests.robot_bridge.safety.cells import STILL, cell

HERE, WANTED = ToolPose(0.56, 0.0, 0.04, 0.0), ToolPose(0.6, 0.03, 0.02, 0.4)
ARRIVED = {"outcome": "reached"}
BORNE = {"outcome": "stopped", "rule": "contact_descend", "reaction": "hold"}
PRESSED = {"outcome": "contact", "rule": "contact_retract", "reaction": "stop"}


class Processes:
    """Gives each motion the next of ``ends``: an answer and where the tool is then; a motion without one arrives."""

    def __init__(self, *ends):
        self.tool, self.ends, self.targets = HERE, list(ends), []

    def report(self):
        now_ns = time.monotonic_ns()
        arm = ArmState(now_ns, now_ns * 1e-9, to_pose(self.tool), STILL, (0.0,) * 6, (), ArmMode.READY, codes={})
        return SimpleNamespace(arm=arm, gripper=None)

    def ask(self, do, timeout_s, *, target, **_):
        assert do == "move"
        reached = to_tool(SimpleNamespace(position_m=target[:3], quaternion_xyzw=target[3:]), WANTED.yaw_rad)
        self.targets.append(reached)
        answer, self.tool = self.ends.pop(0) if self.ends else (ARRIVED, reached)
        pose = to_pose(self.tool)
        return {**answer, "pose": [*pose.position_m, *pose.quaternion_xyzw]}


def move(*ends):
    processes = Processes(*ends)
    reached = CellRobot(cell(), processes).move(WANTED)
    return processes.targets, reached


def test_a_descent_that_is_borne_goes_on_at_that_height_and_then_down():
    touched = ToolPose(0.58, 0.015, 0.03, 0.2)
    targets, reached = move((BORNE, touched))
    assert [each.z_m for each in targets] == pytest.approx([0.02, 0.03, 0.02])
    assert (reached.x_m, reached.y_m, reached.z_m, reached.yaw_rad) == pytest.approx((0.6, 0.03, 0.02, 0.4))


def test_what_bears_the_tool_behind_it_ends_the_step():
    behind = ToolPose(0.6, 0.03, 0.028, 0.4)
    targets, reached = move(
        (BORNE, ToolPose(0.58, 0.015, 0.03, 0.2)), (ARRIVED, replace(WANTED, z_m=0.03)), (BORNE, behind)
    )
    assert len(targets) == 3
    assert reached.z_m == pytest.approx(0.028)


def test_what_bears_the_tool_on_the_way_aside_is_climbed_once():
    first, second = ToolPose(0.58, 0.015, 0.03, 0.2), ToolPose(0.59, 0.02, 0.034, 0.3)
    targets, reached = move((BORNE, first), (BORNE, second), (BORNE, replace(second, x_m=0.595)))
    assert [each.z_m for each in targets] == pytest.approx([0.02, 0.03, 0.034])
    assert reached.x_m == pytest.approx(0.595)


@pytest.mark.parametrize("end", [(PRESSED, ToolPose(0.58, 0.015, 0.07, 0.2)), (BORNE, ToolPose(0.6, 0.03, 0.03, 0.4))])
def test_nothing_follows_a_press_or_where_no_way_aside_is_left(end):
    targets, reached = move(end)
    assert len(targets) == 1
    assert reached.z_m == pytest.approx(end[1].z_m)


def test_a_fault_on_the_way_aside_is_told():
    with pytest.raises(RobotError, match="protective_stop"):
        move(
            (BORNE, ToolPose(0.58, 0.015, 0.03, 0.2)),
            ({"outcome": "stopped", "rule": "protective_stop", "reason": "joint 3"}, HERE),
        )
