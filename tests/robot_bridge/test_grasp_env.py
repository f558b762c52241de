"""The one environment over a fake cell: what ends an episode and what it is worth."""

from dataclasses import replace

import numpy as np
import pytest

from qtopt.errors import ConfigError
from qtopt.specs import make_action
from qtopt.types import Outcome
from robot_bridge import CellConfig, MotionLimits
from tests.contracts.environment import EnvironmentContract
from tests.robot_bridge.fake_cell import FakeCell


class TestGraspEnvOverAFake(EnvironmentContract):
    def make_environment(self, seed):
        return FakeCell(seed).environment(seed=seed)


@pytest.fixture
def cell():
    return FakeCell()


def test_a_held_object_is_worth_one_and_is_lifted_first(cell):
    environment = cell.environment()
    environment.start_episode(0)
    cell.grip_finds, cell.verdict = 0.04, True
    environment.act(make_action(close=True))
    cell.log.clear()
    result = environment.act(make_action(terminate=True))
    assert (result.outcome, result.reward) == (Outcome.SUCCESS, 1.0)
    assert cell.log == ["move", "judge"]
    assert cell.tool.z_m == pytest.approx(environment.config.clear_height_m)
    assert cell.outcomes == [Outcome.SUCCESS]


def test_ending_before_the_object_is_up_is_no_success(cell):
    environment = cell.environment()
    environment.start_episode(0)
    cell.grip_finds, cell.verdict = 0.04, True
    environment.act(make_action((0.0, 0.0, -0.1)))
    environment.act(make_action((0.0, 0.0, -0.1), close=True))
    cell.log.clear()
    assert environment.act(make_action(terminate=True)).outcome is Outcome.NOTHING_GRASPED
    assert cell.log == []


def test_empty_fingers_need_no_lift(cell):
    environment = cell.environment()
    environment.start_episode(0)
    environment.act(make_action(close=True))
    cell.log.clear()
    assert environment.act(make_action(terminate=True)).outcome is Outcome.NOTHING_GRASPED
    assert cell.log == ["doubts"]


def test_a_detector_that_doubts_gets_its_test_and_can_be_right(cell):
    environment = cell.environment()
    environment.start_episode(0)
    cell.is_doubtful, cell.verdict = True, True
    environment.act(make_action(close=True))
    cell.log.clear()
    assert environment.act(make_action(terminate=True)).outcome is Outcome.SUCCESS
    assert cell.log == ["doubts", "move", "judge"]


def test_the_evidence_is_stored_with_the_end(cell):
    environment = cell.environment()
    environment.start_episode(0)
    assert environment.act(make_action(close=True)).metadata == {}
    assert environment.act(make_action(terminate=True)).metadata == {"outcomes": 1}


def test_an_object_lost_after_it_was_up_counts_as_dropped(cell):
    environment = cell.environment()
    environment.start_episode(0)
    cell.grip_finds, cell.is_lifted = 0.04, True
    environment.act(make_action(close=True))
    cell.is_lifted = False
    assert environment.act(make_action(terminate=True)).outcome is Outcome.DROPPED


def test_regrasping_is_possible_and_success_at_the_step_limit_counts(cell):
    environment = cell.environment(CellConfig(max_steps=4))
    environment.start_episode(0)
    cell.verdict = True
    environment.act(make_action(close=True))
    environment.act(make_action(open_=True))
    cell.grip_finds = 0.05
    environment.act(make_action(close=True))
    result = environment.act(make_action())
    assert result.truncated
    assert (result.outcome, result.reward) == (Outcome.SUCCESS, 1.0)


def test_an_undecided_detector_gives_no_label(cell):
    environment = cell.environment()
    environment.start_episode(0)
    cell.grip_finds, cell.verdict = 0.04, None
    environment.act(make_action(close=True))
    result = environment.act(make_action(terminate=True))
    assert (result.outcome, result.reward) == (Outcome.UNKNOWN, 0.0)


def test_close_wins_over_open(cell):
    environment = cell.environment()
    environment.start_episode(0)
    result = environment.act(make_action(close=True, open_=True))
    assert result.observation.gripper_closed
    assert result.executed[5:7].tolist() == [1.0, 0.0]


def test_a_fault_ends_the_episode_as_aborted(cell):
    environment = cell.environment()
    environment.start_episode(0)
    cell.fault = "protective stop"
    result = environment.act(make_action((0.0, 0.0, -0.05)))
    assert result.truncated
    assert result.outcome is Outcome.ABORTED
    assert cell.log == ["stop"]
    assert cell.outcomes == [Outcome.ABORTED]
    assert result.metadata == {"outcomes": 1, "abort": "protective stop"}


def test_a_blocked_descent_shows_in_the_pose_not_in_the_action(cell):
    environment = cell.environment()
    start = environment.start_episode(0).tool_pose
    cell.blocked_z_m = float(start[2]) - 0.03
    result = environment.act(make_action((0.0, 0.0, -0.1)))
    assert result.executed[2] == pytest.approx(-0.1)
    assert result.tool_pose[2] == pytest.approx(start[2] - 0.03)
    assert result.observation.height_to_bottom == pytest.approx(start[2] - 0.03)


def test_what_was_chosen_before_a_hold_is_not_gone_on_with(cell):
    environment = cell.environment()
    start = environment.start_episode(0).tool_pose
    cell.log.clear()
    cell.held_at = 0.25
    result = environment.act(make_action((0.04, -0.02, -0.08), 0.4, close=True))
    assert cell.log == []  # neither the rest of the way nor the fingers
    assert result.outcome is None
    assert result.executed == pytest.approx(make_action((0.01, -0.005, -0.02), 0.1), abs=1e-5)
    assert result.tool_pose == pytest.approx(np.add(start, [0.01, -0.005, -0.02, 0.1]), abs=1e-5)
    assert environment.act(make_action((0.0, 0.0, -0.02), close=True)).observation.gripper_closed


def test_a_hold_on_the_way_up_to_the_judge_costs_no_episode(cell):
    environment = cell.environment()
    environment.start_episode(0)
    cell.grip_finds, cell.verdict = 0.04, True
    environment.act(make_action(close=True))
    cell.held_at = 0.5
    assert environment.act(make_action(terminate=True)).outcome is Outcome.SUCCESS
    assert cell.tool.z_m == pytest.approx(environment.config.clear_height_m)  # before the judge goes anywhere


def test_a_step_held_in_the_middle_of_half_a_turn_is_no_action(cell):
    environment = cell.environment(CellConfig(limits=MotionLimits(step_yaw_rad=0.35)))
    environment.start_episode(0)
    limits = environment.config.limits
    cell.tool = replace(cell.tool, yaw_rad=limits.home_yaw_rad + limits.yaw_rad - 0.05)
    cell.held_at = 0.5
    result = environment.act(make_action((0.0, 0.0, 0.0), 0.2))
    assert (result.outcome, "no action leads" in result.metadata["abort"]) == (Outcome.ABORTED, True)


@pytest.mark.parametrize(
    "settings",
    [
        {"start_height_m": (0.2, 0.1)},
        {"start_height_m": (0.1, 0.9)},
        {"clear_height_m": 0.5},
        {"max_steps": 0},
        {"step_penalty": -1.0},
    ],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError):
        CellConfig(**settings)


@pytest.mark.parametrize("settings", [{"low_m": (0.9, 0.0, 0.0)}, {"step_z_m": 0.0}, {"yaw_rad": 1.0}])
def test_limits_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError):
        MotionLimits(**settings)
