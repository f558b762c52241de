"""qtopt figures, from the files of a run and with real networks in the simulated cell."""

import json

import numpy as np
import pytest
from PIL import Image

from qtopt.agent.cem import CemConfig
from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.agent.network import NetworkConfig
from qtopt.agent.policy import CemPolicy
from qtopt.agent.trace import TracedPolicy
from qtopt.apps.pictures import tables
from qtopt.apps.pictures.episodes import choose, closing_map
from qtopt.errors import ConfigError
from qtopt.types import Observation
from robot_bridge.config import MotionLimits

SMALL = NetworkConfig(width=12)


@pytest.fixture(scope="module")
def learner():
    return Learner(LearnerConfig(network=SMALL), seed=0)


@pytest.fixture
def run(tmp_path, learner):
    """The directory of a run: metrics, a report, a checkpoint."""
    root = tmp_path / "run"
    (root / "eval").mkdir(parents=True)
    report = {"policy": "learned", "step": 5, "objects": "unseen", "successes": 1, "episodes": 2}
    rows = [{"trainer/step": 5.0, "server/episodes": 40.0}, {"minutes": 1.0, "evaluation": report}]
    (root / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    episodes = [
        {"outcome": "success", "last_value": 0.8, "steps": 4},
        {"outcome": "dropped", "last_value": 0.6, "steps": 5},
    ]
    (root / "eval" / "learned-5.json").write_text(json.dumps(report | {"rows": episodes}))
    (root / "checkpoints" / "last").mkdir(parents=True)
    learner.save(root / "checkpoints" / "last")
    return root


def observation(rng, *, closed=False):
    return Observation(rng.integers(0, 256, (72, 72, 3), dtype=np.uint8), closed, 0.08)


@pytest.mark.timeout(300)
def test_all_of_a_run(qtopt, run, tmp_path):
    small = ("--episodes", 1, "--shown", 1, "--size-px", 160, "--fps", 2, "--sim.cell.max-steps", 3)
    code, out, err = qtopt("figures", "all", run, "--output", tmp_path / "pictures", *small)
    assert code == 0, err
    assert "Brier score 0.2000" in out  # (0.2 squared + 0.6 squared) / 2
    found = {path.name: path for path in (tmp_path / "pictures").iterdir()}
    assert sorted(found) == ["calibration.png", "cem.png", "curve.png", "film.png", "film.webp"]
    with Image.open(found["film.webp"]) as film:
        assert film.size == (160, 160 + 52)
    with Image.open(found["cem.png"]) as picture:
        assert picture.width == 1200


@pytest.mark.timeout(300)
def test_all_that_there_is_yet(qtopt, run, tmp_path):
    (run / "metrics.jsonl").write_text("")
    (run / "eval" / "learned-5.json").unlink()
    small = ("--episodes", 1, "--shown", 1, "--size-px", 160, "--fps", 2, "--sim.cell.max-steps", 3)
    code, out, _ = qtopt("figures", "all", run, "--output", tmp_path / "pictures", *small)
    assert code == 1
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["cem.png", "film.png", "film.webp"]
    assert f"not drawn: {tmp_path / 'pictures' / 'curve.png'}: run: found no evaluation of trained networks" in out
    assert "found no report of the learned policy" in out


def test_a_traced_search_decides_as_the_policy_does(learner, rng):
    cem = CemConfig(samples=16, elites=3, iterations=2)
    plain, traced = CemPolicy(learner.theta1, cem), TracedPolicy(learner.theta1, cem)
    for policy in (plain, traced):
        policy.begin_episode(np.random.default_rng(1))
    for closed in (False, True):
        seen = observation(rng, closed=closed)
        one, two = plain.select(seen), traced.select(seen)
        assert np.array_equal(one.action, two.action)
        assert one.value == two.value
        search = traced.searches[-1]
        assert [actions.shape for actions, _ in search.populations] == [(16, 8)] * 2
        assert max(float(q.max()) for _, q in search.populations) == pytest.approx(two.value)
        np.testing.assert_allclose(traced.values(seen, two.action[None]), [two.value], rtol=1e-5)


def test_the_map_stays_within_reach_and_limits(learner, rng):
    policy = TracedPolicy(learner.theta1)
    pose = np.array([0.52, 0.0, 0.08, 0.3], np.float32)
    found = closing_map(policy, observation(rng), pose, MotionLimits(), places=5)
    np.testing.assert_allclose(found.x_m, np.linspace(0.50, 0.60, 5), atol=1e-6)
    np.testing.assert_allclose(found.y_m, np.linspace(-0.08, 0.08, 5), atol=1e-6)
    assert found.q.shape == (5, 5)


@pytest.mark.parametrize(
    ("success", "chosen"),
    [("1111", [0, 1, 2, 3]), ("0101", [1, 3, 0, 2]), ("1000000", [0, 1, 2, 3]), ("0001111", [3, 4, 0, 1])],
)
def test_half_of_the_episodes_shown_failed_where_there_are_enough(success, chosen):
    assert choose([letter == "1" for letter in success], 4) == chosen


def test_results(tmp_path):
    path = tmp_path / "half-hour.json"
    path.write_text(json.dumps({"grasps": 7000, "final_success": 0.8, "interval": [0.7, 0.9], "seeds": [0, 1, 2]}))
    result = tables.read_result(path)
    assert (result.name, result.grasps, result.interval, result.seeds) == ("half-hour", 7000.0, (0.7, 0.9), 3)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read as a result"):
        tables.read_result(path)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["curve"], "found nothing to draw"),
        (["film"], "found no checkpoint"),
        (["all", "a", "b"], "found 2 runs"),
        (["film", "--checkpoint", "a", "--size-px", "100"], "captions fit"),
        (["curve", "nowhere"], "found no metrics.jsonl"),
        (["all", "nowhere"], "found no metrics.jsonl"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(qtopt, words, complaint):
    code, _, err = qtopt("figures", *words)
    assert code == 2
    assert complaint in err
    assert err.count("\n") == 1
