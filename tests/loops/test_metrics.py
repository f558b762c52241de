"""Figures against numbers worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.loops.metrics import Every, Rate, Recent, wilson


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 200, 0.1951, 0.3144)],
)
def test_wilson_as_in_the_tables(successes, trials, low, high):
    found = wilson(successes, trials)
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_holds_the_rate(pair):
    found = wilson(*pair)
    assert 0.0 <= found.low <= found.rate <= found.high <= 1.0


def test_no_trials_say_nothing():
    found = wilson(0, 0)
    assert (found.low, found.high) == (0.0, 1.0)
    assert math.isnan(found.rate)
    assert str(found) == "-"


def test_more_successes_than_trials_are_refused():
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2)


def test_rate_counts_its_window_only():
    clock = Clock()
    rate = Rate(10.0, clock)
    clock.now += 5
    rate.add(20)
    assert rate.per_s() == pytest.approx(4.0)
    clock.now += 8
    rate.add(10)
    clock.now += 3
    assert rate.per_s() == pytest.approx(1.0)
    assert rate.total == 30


def test_recent_forgets():
    recent = Recent(2)
    assert math.isnan(recent.mean())
    for value in (1.0, 2.0, 4.0):
        recent.add(value)
    assert recent.mean() == 3.0
    assert len(recent) == 2


def test_every_is_due_once_a_period():
    clock = Clock()
    every = Every(5.0, clock=clock)
    assert not every.due()
    clock.now += 6
    assert every.due()
    assert not every.due()
    assert Every(5.0, at_once=True, clock=clock).due()
