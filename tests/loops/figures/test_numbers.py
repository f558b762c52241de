"""The numbers behind the figures, worked out by hand."""

import numpy as np
import pytest

from qtopt.errors import ConfigError
from qtopt.loops.figures.calibration import Predictions, predictions_of
from qtopt.loops.figures.history import common_grid, curve_of, resample, scripted_of


def progress(step, grasps):
    return {"minutes": 1.0, "trainer/step": float(step), "server/episodes": float(grasps)}


def evaluation(step, successes, *, policy="learned", objects="unseen", episodes=10, seed=1000):
    report = {"policy": policy, "step": step, "objects": objects, "successes": successes, "episodes": episodes}
    report["seed"] = seed
    return {"minutes": 1.0, "evaluation": report}


def curve(points, name="run"):
    rows = [progress(number + 1, grasps) for number, (grasps, _) in enumerate(points)]
    return curve_of(name, rows + [evaluation(number + 1, won) for number, (_, won) in enumerate(points)])


def test_an_evaluation_stands_at_the_grasps_behind_its_networks():
    rows = [
        progress(0, 40),
        evaluation(0, 3, policy="scripted"),
        evaluation(0, 0),
        progress(100, 1000),
        evaluation(60, 5),
        progress(200, 2000),
        evaluation(100, 6),
        evaluation(150, 9, objects="train"),
        evaluation(150, 7),
        evaluation(200, 4, policy="scripted", seed=1001),
        evaluation(250, 8),
    ]
    found = curve_of("run", rows)
    assert found.grasps.tolist() == [1000, 1000, 2000, 2000]
    assert found.rates.tolist() == [0.5, 0.6, 0.7, 0.8]
    scripted = scripted_of([found])
    assert (scripted.successes, scripted.trials) == (7, 20)


def test_the_same_scripted_scenes_count_once_over_all_runs():
    rows = [progress(1, 1000), evaluation(1, 5)]
    same = [curve_of(name, [*rows, evaluation(0, 3, policy="scripted")]) for name in ("one", "two")]
    other = curve_of("three", [*rows, evaluation(0, 4, policy="scripted", seed=1001)])
    assert (scripted_of(same).successes, scripted_of(same).trials) == (3, 10)
    assert (scripted_of([*same, other]).successes, scripted_of([*same, other]).trials) == (7, 20)


def test_a_run_that_never_evaluated_trained_networks_is_refused():
    with pytest.raises(ConfigError, match="run-7: found no evaluation of trained networks"):
        curve_of("run-7", [progress(0, 40), evaluation(0, 0)])


def test_seeds_are_put_on_the_grasps_that_all_of_them_cover():
    one, two = curve([(1000, 2), (3000, 6)]), curve([(2000, 5), (4000, 9)])
    grid = common_grid([one, two])
    assert grid.tolist() == [2000, 3000]
    np.testing.assert_allclose(resample(one, grid), [0.4, 0.6])  # half way from 0.2 to 0.6
    np.testing.assert_allclose(resample(two, grid), [0.5, 0.7])


def test_seeds_without_a_common_range_are_refused():
    with pytest.raises(ConfigError, match="share no range of grasps"):
        common_grid([curve([(1000, 2), (2000, 6)]), curve([(3000, 5), (4000, 9)])])


def test_brier_and_calibration_error():
    predictions = Predictions(np.array([0.9, 0.2, 0.8, 0.6]), np.array([True, False, True, False]), 0)
    assert predictions.brier == pytest.approx((0.01 + 0.04 + 0.04 + 0.36) / 4)
    # by value in two groups: (0.2 no, 0.6 no): |0.8 - 0| = 0.8; (0.8 yes, 0.9 yes): |1.7 - 2| = 0.3
    assert [sorted(group.tolist()) for group in predictions.groups(2)] == [[1, 3], [0, 2]]
    assert predictions.calibration_error(2) == pytest.approx((0.8 + 0.3) / 4)
    assert predictions.calibration_error(4) == pytest.approx((0.2 + 0.6 + 0.2 + 0.1) / 4)
    assert len(predictions.groups(9)) == 4


def test_episodes_that_the_policy_did_not_end_are_left_out():
    def row(outcome, value, steps):
        return {"outcome": outcome, "last_value": value, "steps": steps}

    rows = [
        row("success", 0.9, 4),
        row("dropped", 0.7, 5),
        row("timed_out", 0.3, 20),
        row("success", 0.8, 20),
        row("aborted", 0.5, 3),
        row("nothing_grasped", None, 3),
    ]
    found = predictions_of([{"rows": rows}])
    assert found.value.tolist() == [0.9, 0.7]
    assert found.success.tolist() == [True, False]
    assert found.left_out == 4
    short = predictions_of([{"rows": rows, "sim": {"cell": {"max_steps": 5}}}])
    assert short.value.tolist() == [0.9]
    with pytest.raises(ConfigError, match="found no episode that a learned policy ended"):
        predictions_of([{"rows": rows[2:]}])
