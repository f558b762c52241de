"""What a record of a tool's way says: when it stood, how far it went, whether it stayed."""

import math

import pytest

from sim.faults.judge import SLACK_M, Course, allowed, course, descent, overrun

STEP_S = 1 / 240


def record(*legs, before_s=0.1, speed_m_s=0.1):
    """Returns samples along x from -before_s on: ``speed_m_s`` until 0, then legs of (seconds, speed)."""
    samples, time_s, x_m = [], -before_s, -before_s * speed_m_s
    for seconds, speed in ((before_s, speed_m_s), *legs):
        for _ in range(round(seconds / STEP_S)):
            time_s, x_m = time_s + STEP_S, x_m + speed * STEP_S
            samples.append((time_s, x_m, 0.0, 0.2))
    return samples


def test_a_stop_has_a_time_and_a_way():
    found = course(record((0.25, 0.1), (1.0, 0.0)), 0.0)
    assert found.stood_s == pytest.approx(0.27, abs=0.01)  # speeds are taken over 20 ms
    assert found.way_m == pytest.approx(0.025, abs=1e-3)
    assert found.drift_m == pytest.approx(0.0, abs=1e-9)
    assert found.watched_s == pytest.approx(0.98, abs=0.02)


def test_what_goes_on_after_a_rest_has_not_stood_before():
    found = course(record((0.1, 0.1), (0.5, 0.0), (0.1, 0.05), (0.5, 0.0)), 0.0)
    assert found.stood_s == pytest.approx(0.72, abs=0.01)
    assert found.way_m == pytest.approx(0.015, abs=1e-3)


@pytest.mark.parametrize("rest_s", [0.0, 0.5])
def test_a_descent_ends_where_the_tool_is_led_up_whether_it_stood_or_not(rest_s):
    down = [(time_s, 0.5, 0.0, 0.5 - x_m) for time_s, x_m, *_ in record((0.1, 0.1), (rest_s, 0.0), (0.4, -0.05))]
    found = descent(down, 0.0)
    assert found.stood_s == pytest.approx(0.1, abs=0.005)
    assert found.way_m == pytest.approx(0.01, abs=5e-4)
    assert found.watched_s == pytest.approx(rest_s + 0.4, abs=0.01)


def test_creeping_is_no_standing():
    assert math.isnan(course(record((1.0, 0.01)), 0.0).stood_s)


def test_a_record_that_ends_too_early_is_refused():
    with pytest.raises(ValueError, match="ends before the fault"):
        course(record((0.1, 0.1)), 5.0)


def test_what_is_allowed_is_reaction_braking_and_the_machines_lateness():
    most = allowed(0.07, 0.3, 0.0)
    assert (most.stood_s, most.way_m) == pytest.approx((0.37, 0.07 * 0.3 + 0.07**2 / 2 + SLACK_M))
    late = allowed(0.07, 0.3, 0.1)
    assert (late.stood_s, late.way_m) == pytest.approx((most.stood_s + 0.1, most.way_m + 0.007))
    assert overrun(Course(0.36, 0.02, 0.0, 1.0), most) == []
    assert len(overrun(Course(0.38, 0.03, 0.0, 1.0), most)) == 2
    assert len(overrun(Course(math.nan, math.nan, math.nan, 0.0), most)) == 2, "it never stood"
