"""The last checkpoints of runs as one result, by hand."""

import pytest

from qtopt.loops.finals import Checked, best_of, summarise_finals
from qtopt.loops.metrics import wilson


def checked(seed, *successes, trials=10):
    return [Checked(seed, 100 * step, wilson(count, trials)) for step, count in enumerate(successes, 1)]


def test_the_mean_comes_with_the_interval_over_all_episodes():
    told = summarise_finals(checked(0, 4, 5, 9))
    assert told["final_success"] == 0.6
    assert told["episodes"] == 30
    assert told["interval"] == [round(wilson(18, 30).low, 4), round(wilson(18, 30).high, 4)]
    assert told["seeds"] == [0]
    assert "over_seeds" not in told
    assert "last_10_worst" not in told


def test_seeds_are_told_apart():
    told = summarise_finals(checked(0, 4, 6) + checked(1, 8, 8))
    assert told["final_success"] == 0.65
    assert told["over_seeds"] == {
        "mean": 0.65,
        "standard_deviation": pytest.approx(0.2121, abs=1e-4),
        "worst": 0.5,
        "best": 0.8,
    }


def test_of_many_checkpoints_the_last_ten_are_told():
    told = summarise_finals(checked(0, 0, 3, 4, 5, 6, 7, 6, 5, 4, 5, 6))
    assert (told["last_10_worst"], told["last_10_best"]) == (0.3, 0.7)


def test_the_best_says_of_how_many_it_is():
    assert best_of(checked(3, 4, 9, 5)) == {"n": 3, "success": 0.9, "seed": 3, "step": 200}
