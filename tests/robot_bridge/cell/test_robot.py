"""What becomes of a step that touches something, with processes that answer as a test says."""

import math
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.errors import RobotError
from qtopt.specs import make_action
from robot_bridge.cell.robot import CellRobot
from robot_bridge.cell_file import cell_config
from robot_bridge.contracts import ArmMode, ArmState, MotionCommand, Pose, Reaction
from robot_bridge.displacement import limit_action, to_pose, to_tool
from robot_bridge.robot import StepHeld, ToolPose
from robot_bridge.safety.commands import CommandRules
from robot_bridge.safety.facts import Phase
from tests.robot_bridge.safety.cells import STILL, cell

HERE, WANTED = ToolPose(0.56, 0.0, 0.14, 0.0), ToolPose(0.6, 0.03, 0.12, 0.4)
ARRIVED = {"outcome": "reached"}
BORNE = {"outcome": "stopped", "rule": "contact_descend", "reaction": "hold"}
ASIDE = {**BORNE, "rule": "contact_aside"}
OLD_PICTURE = {"outcome": "stopped", "rule": "camera_age", "reaction": "hold", "reason": "0.6 s old"}
BLOCKED = {"outcome": "contact", "rule": ""}
PRESSED = {"outcome": "contact", "rule": "contact_retract", "reaction": "stop"}


class Processes:
    """Gives each motion the next of ``ends``: an answer and where the tool is then; a motion without one arrives."""

    def __init__(self, *ends):
        self.tool, self.ends, self.targets, self.speeds_m_s = HERE, list(ends), [], []
        self.held = self.gripped = 0  # so often nothing may move; so often the fingers were moved
        self.took_s = 0.0

    def report(self):
        now_ns = time.monotonic_ns()
        arm = ArmState(now_ns, now_ns * 1e-9, to_pose(self.tool), STILL, (0.0,) * 6, (), ArmMode.READY, codes={})
        return SimpleNamespace(
            arm=arm, gripper=SimpleNamespace(t_host_ns=now_ns, width_m=0.03 if self.gripped else 0.085)
        )

    def ask(self, do, timeout_s, *, target=(), speed=0.0, **_):
        if do == "enter":
            return {}
        if do == "may_move":
            self.held -= 1
            return {} if self.held < 0 else OLD_PICTURE
        if do == "grip":
            self.gripped += 1
            return {"yields": 0, "at_ns": 0}
        assert do == "move"
        time.sleep(self.took_s)
        reached = to_tool(SimpleNamespace(position_m=target[:3], quaternion_xyzw=target[3:]), WANTED.yaw_rad)
        self.targets.append(reached)
        self.speeds_m_s.append(speed)
        answer, self.tool = self.ends.pop(0) if self.ends else (ARRIVED, reached)
        pose = to_pose(self.tool)
        return {**answer, "pose": [*pose.position_m, *pose.quaternion_xyzw]}


def robot_of(processes, config=None):
    robot = CellRobot(config or cell(), processes)
    robot.enter(Phase.EPISODE)
    robot.widths_m = (0.0, 0.085)
    return robot


def move(*ends):
    processes = Processes(*ends)
    reached = robot_of(processes).move(WANTED)
    return processes.targets, reached


@pytest.mark.parametrize("answer", [BORNE, ASIDE, BLOCKED])
def test_what_is_in_the_way_is_gone_over_and_the_tool_comes_down_where_it_was_sent(answer):
    targets, reached = move((answer, ToolPose(0.58, 0.015, 0.13, 0.2)))
    assert [(each.x_m, each.y_m, each.z_m, each.yaw_rad) for each in targets[1:]] == [
        pytest.approx((0.58, 0.015, 0.16, 0.2)),
        pytest.approx((0.6, 0.03, 0.16, 0.4)),
        pytest.approx((0.6, 0.03, 0.12, 0.4)),
    ]
    assert (reached.x_m, reached.y_m, reached.z_m, reached.yaw_rad) == pytest.approx((0.6, 0.03, 0.12, 0.4))


def test_what_bears_the_tool_where_it_was_sent_ends_the_step():
    first, behind = ToolPose(0.58, 0.015, 0.13, 0.2), ToolPose(0.6, 0.03, 0.128, 0.4)
    up, over = replace(first, z_m=0.16), replace(WANTED, z_m=0.16)
    targets, reached = move((BORNE, first), (ARRIVED, up), (ARRIVED, over), (BORNE, behind))
    assert len(targets) == 4
    assert reached.z_m == pytest.approx(0.128)


def test_what_is_in_the_way_over_it_is_gone_over_higher_and_only_once():
    first, second, third = (
        ToolPose(0.58, 0.015, 0.13, 0.2),
        ToolPose(0.59, 0.02, 0.16, 0.3),
        ToolPose(0.59, 0.02, 0.19, 0.3),
    )
    targets, reached = move(
        (BORNE, first),
        (ARRIVED, replace(first, z_m=0.16)),
        (ASIDE, second),
        (ARRIVED, replace(second, z_m=0.19)),
        (ASIDE, third),
    )
    assert [each.z_m for each in targets] == pytest.approx([0.12, 0.16, 0.16, 0.19, 0.19])
    assert reached.x_m == pytest.approx(0.59)


@pytest.mark.parametrize(("phase", "goes_over"), [(Phase.TRANSIT, True), (Phase.EPISODE, False)])
def test_nothing_is_gone_over_on_the_way_home_or_under_a_persons_hands(phase, goes_over):
    processes = Processes((BLOCKED, ToolPose(0.58, 0.015, 0.13, 0.2)))
    robot = robot_of(processes)
    robot.enter(phase)
    robot.goes_over = goes_over
    assert robot.move(WANTED).z_m == pytest.approx(0.13)
    assert (len(processes.targets), robot.detours) == (1, 0)


def test_the_way_over_is_slow():
    processes = Processes((BORNE, ToolPose(0.58, 0.015, 0.13, 0.2)))
    robot_of(processes).move(WANTED)
    limits = cell().limits
    assert processes.speeds_m_s == [limits.speed_m_s, *[limits.slow_speed_m_s] * 3]


def test_nothing_leads_out_of_the_workspace_over_what_is_in_the_way():
    config = cell()
    top_m = config.bin.floor_z_m + config.episode.top_height_m
    processes = Processes((ASIDE, ToolPose(0.58, 0.0, top_m - 0.003, 0.0)))
    processes.tool = ToolPose(0.56, 0.0, top_m, 0.0)
    robot = robot_of(processes, config)
    robot.move(ToolPose(0.6, 0.0, top_m, 0.0))
    assert (len(processes.targets), robot.detours) == (1, 0)


class Judged(Processes):
    """Makes each motion as the monitor's rules let it be made, and ends it at a share of its way where that is less."""

    def __init__(self, config, tool, shares):
        super().__init__()
        self.tool, self.shares, self.rules = tool, list(shares), CommandRules(config)
        self.touched = False

    def ask(self, do, timeout_s, *, target=(), speed=0.0, accel=0.0, yaw_rate=0.0, **_):
        if do == "enter":
            return {}
        wanted = MotionCommand(Pose(tuple(target[:3]), tuple(target[3:])), speed, accel, yaw_rate)
        verdict = self.rules.judge(wanted, self.report().arm, Phase.EPISODE, slow=False, way=None)
        assert verdict.reaction in (Reaction.ALLOW, Reaction.CLAMP), verdict
        end, share = to_tool(verdict.command.target, self.tool.yaw_rad), self.shares.pop(0) if self.shares else 1.0
        self.touched = share < 1.0
        here = self.tool.array() + share * (end.array() - self.tool.array())
        self.tool = ToolPose(*here.tolist())
        if self.touched:
            self.tool = replace(self.tool, z_m=self.tool.z_m + 0.004)
        pose = to_pose(self.tool)
        return {**(BORNE if self.touched else ARRIVED), "pose": [*pose.position_m, *pose.quaternion_xyzw]}


@pytest.fixture
def clock_s(monkeypatch):
    """A clock that goes on only as somebody sleeps: what it shows, in a list."""
    shown = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: shown[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: shown.append(shown.pop() + seconds))
    return shown


@pytest.mark.usefixtures("clock_s")
@pytest.mark.parametrize("outcome", ["stopped", "rejected"])
def test_a_held_step_waits_for_its_cause_and_is_not_sent_again(outcome):
    processes = Processes(({**OLD_PICTURE, "outcome": outcome}, ToolPose(0.57, 0.0, 0.135, 0.1)))
    processes.held = 2
    robot = robot_of(processes)
    with pytest.raises(StepHeld, match="camera_age"):
        robot.move(WANTED)
    assert (len(processes.targets), processes.held, robot.holds) == (1, -1, 1)


@pytest.mark.usefixtures("clock_s")
def test_fingers_do_not_begin_while_an_episode_is_held():
    processes = Processes()
    processes.held = 2
    robot = robot_of(processes)
    with pytest.raises(StepHeld, match="camera_age"):
        robot.grip(close=True)
    assert (processes.gripped, robot.holds) == (0, 1)
    robot.grip(close=True)
    assert processes.gripped == 1


def test_it_tells_how_much_nearer_the_fingers_came_since_they_were_told_to_close():
    robot = robot_of(Processes())
    assert robot.state().gripper_closed_by_m == math.inf
    for _ in range(2):  # told once more, they stand where they closed
        robot.grip(close=True)
        assert robot.state().gripper_closed_by_m == pytest.approx(0.055)
    robot.grip(close=False)
    assert robot.state().gripper_closed_by_m == math.inf


def test_a_hold_is_sat_out_from_when_it_began(clock_s):
    processes = Processes((OLD_PICTURE, HERE))
    processes.held, processes.took_s = 5, 3.0
    with pytest.raises(StepHeld):
        robot_of(processes).move(WANTED)
    assert clock_s[0] == pytest.approx(103.6)


@pytest.mark.usefixtures("clock_s")
def test_what_holds_a_step_for_too_long_is_a_fault():
    processes = Processes((OLD_PICTURE, HERE))
    processes.held = 1000
    with pytest.raises(RobotError, match="camera_age") as raised:
        robot_of(processes).move(WANTED)
    assert not isinstance(raised.value, StepHeld)
    assert len(processes.targets) == 1


@pytest.mark.usefixtures("clock_s")
def test_a_way_home_that_was_held_is_gone_on_with():
    processes = Processes((OLD_PICTURE, HERE))
    robot = robot_of(processes)
    robot.enter(Phase.TRANSIT)
    assert robot.move(WANTED).x_m == pytest.approx(WANTED.x_m)
    assert (len(processes.targets), robot.holds) == (2, 0)


@given(st.data())
def test_a_step_ends_where_it_was_sent_or_on_something_and_inside_the_workspace(data):
    config = cell("[limits]\nstep_m = " + str(data.draw(st.sampled_from([0.005, 0.02, 0.05, 0.1]))))
    limits = cell_config(config).limits
    place = [data.draw(st.floats(low, high)) for low, high in zip(limits.low_m, limits.high_m, strict=True)]
    start = ToolPose(*place, data.draw(st.floats(-1.5, 1.5)))
    step = [data.draw(st.floats(-limits.step_xy_m, limits.step_xy_m)) for _ in range(3)]
    _, target = limit_action(make_action(tuple(step), data.draw(st.floats(-0.3, 0.3))), start, limits)
    processes = Judged(config, start, data.draw(st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0, 1.0, 1.0]), max_size=12)))
    reached = robot_of(processes, config).move(target)
    gap_m = math.dist(reached.array()[:3], target.array()[:3])
    assert processes.touched or gap_m < 0.006
    assert reached.z_m <= limits.high_m[2] + 0.004 + 1e-9


@pytest.mark.parametrize("end", [(PRESSED, ToolPose(0.58, 0.015, 0.17, 0.2)), (BORNE, ToolPose(0.6, 0.03, 0.13, 0.4))])
def test_nothing_follows_a_press_or_where_no_way_aside_is_left(end):
    targets, reached = move(end)
    assert len(targets) == 1
    assert reached.z_m == pytest.approx(end[1].z_m)


def test_a_fault_on_the_way_aside_is_told():
    with pytest.raises(RobotError, match="protective_stop"):
        move(
            (BORNE, ToolPose(0.58, 0.015, 0.13, 0.2)),
            ({"outcome": "stopped", "rule": "protective_stop", "reason": "joint 3"}, HERE),
        )
