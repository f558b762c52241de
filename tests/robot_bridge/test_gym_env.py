"""The Gymnasium wrapper over a fake cell."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from qtopt.specs import STEP_Z_M
from robot_bridge.gym_env import GymGraspEnv
from tests.robot_bridge.fake_cell import FakeCell


@pytest.fixture
def environment():
    environment = GymGraspEnv(FakeCell().environment(), 16, "rgb_array")
    yield environment
    environment.close()


def test_gymnasium_is_content(environment):
    check_env(environment, skip_render_check=True)


def test_actions_are_shares_of_the_limits(environment):
    _, info = environment.reset(seed=1)
    start = info["tool_pose"]
    assert info["metadata"]["objects"] == [1, 2]
    _, reward, terminated, truncated, info = environment.step(np.array([0, 0, -0.5, 0, 1, 0.4, 0, 0], np.float32))
    assert info["tool_pose"][2] == pytest.approx(start[2] - STEP_Z_M / 2, abs=1e-5)
    assert (reward, terminated, truncated) == (pytest.approx(-0.05), False, False)
    assert info["executed_action"][5] == 0
    assert not info["is_success"]


def test_the_end_is_told(environment):
    environment.reset(seed=1)
    _, _, terminated, _, info = environment.step(np.array([0, 0, 0, 0, 1, 0, 0, 1], np.float32))
    assert terminated
    assert info["outcome"] == "NOTHING_GRASPED"


def test_render_returns_the_newest_frame(environment):
    observation, _ = environment.reset(seed=1)
    np.testing.assert_array_equal(environment.render(), observation["image"])
