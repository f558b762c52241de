"""What every ``qtopt.interfaces.Environment`` must do; inherit and give a ``make_environment`` method."""

import numpy as np
import pytest

from qtopt.errors import RobotError
from qtopt.specs import ACTION_SPEC, MAX_STEPS, STEP_XY_M, STEP_YAW_RAD, STEP_Z_M, make_action
from qtopt.types import Outcome


def play(environment, seed, steps=MAX_STEPS):
    """Returns everything seen in an episode of random actions drawn from ``seed``."""
    rng = np.random.default_rng(seed)
    first = environment.start_episode(seed)
    seen = [first]
    for _ in range(steps):
        low, high = (-STEP_XY_M, -STEP_XY_M, -STEP_Z_M), (STEP_XY_M, STEP_XY_M, STEP_Z_M)
        action = make_action(
            tuple(rng.uniform(low, high)), rng.uniform(-1, 1), close=rng.random() < 0.4, open_=rng.random() < 0.2
        )
        seen.append(environment.act(action))
        if seen[-1].terminated or seen[-1].truncated:
            break
    return seen


class EnvironmentContract:
    """Inherit; ``make_environment(seed)`` returns a fresh environment."""

    @pytest.fixture
    def environment(self):
        environment = self.make_environment(0)
        yield environment
        environment.close()

    def test_arrays_have_the_shapes_and_types_of_the_specs(self, environment):
        first = environment.start_episode(1)
        result = environment.act(make_action((0.01, 0.0, -0.01)))
        for step in (first, result):
            image = step.observation.image
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[0] == image.shape[1]
            assert image.shape[2] == 3
            assert isinstance(step.observation.gripper_closed, bool)
            assert isinstance(step.observation.height_to_bottom, float)
            assert step.tool_pose.dtype == np.float32
            assert step.tool_pose.shape == (4,)
        ACTION_SPEC.validate(result.executed)

    def test_starts_open_above_the_bin(self, environment):
        observation = environment.start_episode(2).observation
        assert not observation.gripper_closed
        assert 0.15 <= observation.height_to_bottom <= 0.21

    def test_terminate_ends_at_once_and_does_nothing_else(self, environment):
        before = environment.start_episode(3).tool_pose
        result = environment.act(make_action((0.05, 0.05, -0.05), 1.0, close=True, terminate=True))
        assert result.terminated
        assert not result.truncated
        assert result.outcome is Outcome.NOTHING_GRASPED
        assert result.reward == 0.0
        np.testing.assert_array_equal(result.executed, [0, 0, 0, 0, 1, 0, 0, 1])
        np.testing.assert_allclose(result.tool_pose, before, atol=1e-5)

    def test_acting_after_the_end_is_an_error(self, environment):
        with pytest.raises(RobotError, match="start_episode"):
            environment.act(make_action())
        environment.start_episode(4)
        environment.act(make_action(terminate=True))
        with pytest.raises(RobotError, match="start_episode"):
            environment.act(make_action())

    def test_steps_cost_and_the_last_one_is_truncated(self, environment):
        environment.start_episode(5)
        results = [environment.act(make_action((0.0, 0.0, 0.01))) for _ in range(MAX_STEPS)]
        assert [round(result.reward, 6) for result in results] == [-0.05] * (MAX_STEPS - 1) + [0.0]
        assert [result.truncated for result in results] == [False] * (MAX_STEPS - 1) + [True]
        assert not any(result.terminated for result in results)
        assert results[-1].outcome is Outcome.TIMED_OUT

    def test_the_displacement_comes_before_the_gripper(self, environment):
        start = environment.start_episode(6).tool_pose
        result = environment.act(make_action((0.0, 0.0, 0.02), 0.3, close=True))
        assert result.observation.gripper_closed
        assert result.tool_pose[2] == pytest.approx(start[2] + 0.02, abs=3e-3)
        assert result.tool_pose[3] == pytest.approx(start[3] + 0.3, abs=0.02)

    def test_too_large_an_action_is_executed_within_limits(self, environment):
        environment.start_episode(7)
        result = environment.act(make_action((9.0, -9.0, -0.5), 3.0))
        assert np.all(np.abs(result.executed[:2]) <= STEP_XY_M + 1e-6)
        assert abs(result.executed[2]) <= STEP_Z_M + 1e-6
        assert np.arctan2(result.executed[3], result.executed[4]) == pytest.approx(STEP_YAW_RAD, abs=1e-5)

    def test_numbers_that_are_none_are_refused(self, environment):
        environment.start_episode(8)
        with pytest.raises(RobotError, match="finite"):
            environment.act(np.full(8, np.nan, np.float32))

    def test_one_seed_gives_one_episode(self, environment):
        other = self.make_environment(99)
        try:
            play(environment, 11, steps=3)
            for one, two in zip(play(environment, 12), play(other, 12), strict=True):
                np.testing.assert_array_equal(one.observation.image, two.observation.image)
                np.testing.assert_array_equal(one.tool_pose, two.tool_pose)
                assert one.observation.height_to_bottom == two.observation.height_to_bottom
                assert getattr(one, "outcome", None) == getattr(two, "outcome", None)
        finally:
            other.close()

    def test_closing_twice_is_no_error(self):
        environment = self.make_environment(0)
        environment.close()
        environment.close()
