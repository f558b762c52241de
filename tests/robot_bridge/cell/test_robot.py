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

HERE, WANTED = ToolPose(0.56, 0.0, -0.06, 0.0), ToolPose(0.6, 0.03, -0.08, 0.4)
ARRIVED = {"outcome": "reached"}
BORNE = {"outcome": "stopped", "rule": "contact_descend", "reaction": "hold"}
ASIDE = {**BORNE, "rule": "contact_aside"}
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


@pytest.mark.parametrize("rule", [BORNE, ASIDE])
def test_what_is_in_the_way_is_gone_over_and_the_tool_comes_down_where_it_was_sent(rule):
    targets, reached = move((rule, ToolPose(0.58, 0.015, -0.07, 0.2)))
    assert [(each.x_m, each.y_m, each.z_m, each.yaw_rad) for each in targets[1:]] == [
        pytest.approx((0.58, 0.015, -0.04, 0.2)),
        pytest.approx((0.6, 0.03, -0.04, 0.4)),
        pytest.approx((0.6, 0.03, -0.07, 0.4)),
        pytest.approx((0.6, 0.03, -0.08, 0.4)),
    ]
    assert (reached.x_m, reached.y_m, reached.z_m, reached.yaw_rad) == pytest.approx((0.6, 0.03, -0.08, 0.4))


def test_what_bears_the_tool_where_it_was_sent_ends_the_step():
    first, behind = ToolPose(0.58, 0.015, -0.07, 0.2), ToolPose(0.6, 0.03, -0.072, 0.4)
    up, over, down = replace(first, z_m=-0.04), replace(WANTED, z_m=-0.04), replace(WANTED, z_m=-0.07)
    targets, reached = move((BORNE, first), (ARRIVED, up), (ARRIVED, over), (ARRIVED, down), (BORNE, behind))
    assert len(targets) == 5
    assert reached.z_m == pytest.approx(-0.072)


def test_what_is_in_the_way_over_it_is_gone_over_higher_and_only_once():
    first, second, third = (
        ToolPose(0.58, 0.015, -0.07, 0.2),
        ToolPose(0.59, 0.02, -0.04, 0.3),
        ToolPose(0.59, 0.02, 0.0, 0.3),
    )
    targets, reached = move(
        (BORNE, first),
        (ARRIVED, replace(first, z_m=-0.04)),
        (ASIDE, second),
        (ARRIVED, replace(second, z_m=0.02)),
        (ASIDE, third),
    )
    assert [each.z_m for each in targets] == pytest.approx([-0.08, -0.04, -0.04, 0.02, 0.02])
    assert reached.x_m == pytest.approx(0.59)


@pytest.mark.parametrize(
    "end", [(PRESSED, ToolPose(0.58, 0.015, -0.03, 0.2)), (BORNE, ToolPose(0.6, 0.03, -0.07, 0.4))]
)
def test_nothing_follows_a_press_or_where_no_way_aside_is_left(end):
    targets, reached = move(end)
    assert len(targets) == 1
    assert reached.z_m == pytest.approx(end[1].z_m)


def test_a_fault_on_the_way_aside_is_told():
    with pytest.raises(RobotError, match="protective_stop"):
        move(
            (BORNE, ToolPose(0.58, 0.015, -0.07, 0.2)),
            ({"outcome": "stopped", "rule": "protective_stop", "reason": "joint 3"}, HERE),
        )
