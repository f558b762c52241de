"""The environment over the simulator: the contract, repeatability, independence, the Gymnasium name."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from qtopt.errors import ConfigError
from qtopt.specs import make_action
from qtopt.types import Outcome
from sim import Randomisation, SimConfig, make_environment
from tests.contracts.environment import EnvironmentContract, play


class TestGraspEnvOverTheSimulator(EnvironmentContract):
    def make_environment(self, seed):
        return make_environment(SimConfig(object_count=(1, 4)), seed)


def test_environments_in_one_process_do_not_disturb_each_other():
    alone, one, two = (make_environment(SimConfig(object_count=(3, 3)), seed) for seed in (0, 0, 1))
    expected = [play(alone, seed)[-1] for seed in (5, 6)]
    first = one.start_episode(5)
    two.start_episode(9)
    rng = np.random.default_rng(0)
    for _ in range(5):
        two.act(make_action(tuple(rng.uniform(-0.05, 0.05, 3)), close=True))
    two.close()
    assert first.metadata["objects"]
    actual = [play(one, seed)[-1] for seed in (5, 6)]
    for want, have in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(want.observation.image, have.observation.image)
        np.testing.assert_array_equal(want.tool_pose, have.tool_pose)
    alone.close()
    one.close()


def test_without_seeds_two_environments_still_agree():
    one, two = (make_environment(SimConfig(object_count=(2, 5)), 3) for _ in range(2))
    for _ in range(3):
        left, right = one.start_episode(), two.start_episode()
        np.testing.assert_array_equal(left.observation.image, right.observation.image)
        assert left.metadata == right.metadata
        for environment in (one, two):
            environment.act(make_action((0.0, 0.0, -0.1), close=True))
            environment.act(make_action(terminate=True))
    one.close()
    two.close()


def test_registered_and_gymnasium_is_content():
    environment = gymnasium.make("qtopt/KukaGrasp-v0", render_mode="rgb_array")
    check_env(environment.unwrapped)
    environment.close()


def test_randomisation_is_drawn_stored_and_repeatable(cell_of):
    amount = Randomisation(0.03, 0.02, True, True, 0.3, 0.5, 0.1)
    cell = cell_of(randomisation=amount, object_count=(2, 2))
    first = cell.environment.start_episode(1)
    again = cell.environment.start_episode(1)
    other = cell.environment.start_episode(2)
    assert first.metadata == again.metadata
    np.testing.assert_array_equal(first.observation.image, again.observation.image)
    drawn = {"camera_position_m", "camera_target_m", "light_direction", "friction_scale", "mass_scale", "latency_s"}
    assert drawn <= first.metadata.keys()
    assert all(first.metadata[name] != other.metadata[name] for name in drawn)
    assert 0.7 <= first.metadata["friction_scale"] <= 1.3
    assert 0.0 <= first.metadata["latency_s"] <= 0.1
    nominal = np.array(SimConfig().camera.position_m)
    assert np.all(np.abs(np.array(first.metadata["camera_position_m"]) - nominal) <= 0.03)


def test_latency_shows_the_past(cell_of):
    late, prompt = cell_of(object_count=(1, 1)), cell_of(object_count=(1, 1))
    for each in (late, prompt):
        each.environment.start_episode(4)
    late.robot.latency_s = 0.1
    action = make_action((0.06, 0.0, 0.0))
    seen, now = (each.environment.act(action) for each in (late, prompt))
    np.testing.assert_allclose(seen.tool_pose, now.tool_pose, atol=1e-3)
    assert np.any(seen.observation.image != now.observation.image)


def test_fresh_scenes_do_not_depend_on_what_was_done_before(cell_of):
    settings = {"fresh_scene_every_episode": True, "object_count": (4, 4), "objects": "unseen"}
    idle, busy = cell_of(**settings), cell_of(**settings)
    for each in (idle, busy):
        each.environment.start_episode(1)
    for _ in range(2):
        busy.environment.act(make_action((0.0, 0.0, -0.1)))
    left, right = (each.environment.start_episode() for each in (idle, busy))
    np.testing.assert_array_equal(left.observation.image, right.observation.image)
    assert len(left.metadata["objects"]) == 4
    assert all(number % 10 == 0 for number in left.metadata["objects"])


@pytest.mark.parametrize(
    "settings",
    [
        {"object_count": (0, 3)},
        {"object_count": (5, 3)},
        {"object_count": (1, 11)},
        {"object_scale": 9.0},
        {"stuck_after": 0},
        {"keep_scene": True, "fresh_scene_every_episode": True},
    ],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError):
        SimConfig(**settings)


@pytest.mark.parametrize("settings", [{"friction": 1.0}, {"latency_s": -0.1}])
def test_randomisation_that_cannot_work_is_refused(settings):
    with pytest.raises(ConfigError):
        Randomisation(**settings)


def test_aimed_grasps_succeed(cell_of):
    """Knows where the objects are, as no policy does: single objects, their centre, any azimuth."""
    cell = cell_of(object_count=(1, 1), fresh_scene_every_episode=True)
    rng = np.random.default_rng(0)
    successes = sum(grasp_at_centre(cell, rng) for _ in range(24))
    assert successes >= 12


def grasp_at_centre(cell, rng):
    """Returns whether a grasp at an object's centre, at a random azimuth, holds."""
    environment = cell.environment
    pose = environment.start_episode().tool_pose
    aim = cell.world.position(next(iter(cell.world.objects)))
    turn = float(rng.uniform(-1.5, 1.5))
    for _ in range(4):
        gap = (aim[0] - float(pose[0]), aim[1] - float(pose[1]))
        pose = environment.act(make_action((*gap, 0.0), turn)).tool_pose
        turn = 0.0
    for _ in range(2):
        environment.act(make_action((0.0, 0.0, -0.1)))
    environment.act(make_action(close=True))
    environment.act(make_action((0.0, 0.0, 0.1)))
    return environment.act(make_action(terminate=True)).outcome is Outcome.SUCCESS
