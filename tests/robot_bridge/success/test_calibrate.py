"""What calibration computes, against signals whose answer is known."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.errors import RobotError
from robot_bridge.success.calibrate import (
    blob_threshold,
    empty_width,
    picture_motion,
    pixel_threshold,
    signal_latency,
)
from robot_bridge.success.images import compare, median_picture
from robot_bridge.success_config import SuccessConfig
from tests.robot_bridge.success.simulated import BadCamera, Defects, simulated_cell


def test_the_empty_width_is_mean_and_deviation(rng):
    learned = empty_width(0.0008 + 0.0001 * rng.standard_normal(200))
    assert learned.mean_m == pytest.approx(0.0008, abs=3e-5)
    assert learned.sigma_m == pytest.approx(0.0001, rel=0.2)


@pytest.mark.parametrize("widths", [[0.001] * 19, [0.001] * 19 + [0.02], [0.001] * 19 + [float("nan")]])
def test_too_few_or_too_different_closes_are_refused(widths):
    with pytest.raises(RobotError):
        empty_width(widths)


def test_the_threshold_is_half_above_the_99th_percentile():
    assert blob_threshold([98] * 50) == 147
    assert blob_threshold([0] * 50) == 20
    assert blob_threshold(list(range(101))) == 149
    with pytest.raises(RobotError):
        blob_threshold([5] * 49)


def untouched(noise, shake_px):
    """Fifty pairs of pictures of a bin that nobody touches."""
    camera = BadCamera(simulated_cell(0), 0)
    camera.defects = Defects(noise=noise, shake_px=shake_px)
    pictures = [median_picture([camera.capture() for _ in range(5)]) for _ in range(26)]
    return 2 * list(pairwise(pictures))


def test_a_restless_camera_gets_a_higher_threshold_and_a_quiet_one_a_lower():
    quiet, usual, restless = (pixel_threshold(untouched(*each)) for each in ((1.0, 0.1), (3.0, 0.4), (6.0, 0.8)))
    assert quiet == 15.0
    assert 18.0 < usual < 32.0
    assert 1.5 * usual < restless < 60.0


def test_nothing_is_seen_in_an_untouched_bin_with_what_was_learned():
    pairs = untouched(6.0, 0.8)
    config = SuccessConfig(diff_t=pixel_threshold(pairs))
    assert max(compare(*pair, config).area_px for pair in pairs) <= 20
    assert max(compare(*pair, SuccessConfig()).area_px for pair in pairs) > 60, "with the default there would be"


def test_a_camera_that_nothing_can_be_told_by_is_refused():
    with pytest.raises(RobotError, match="grey levels"):
        pixel_threshold(untouched(3.0, 6.0))
    with pytest.raises(RobotError, match="expected at least 50"):
        pixel_threshold(untouched(3.0, 0.4)[:49])


def swing(times_s):
    return np.sin(2 * np.pi * 0.5 * times_s)


@given(st.floats(0.02, 0.4), st.sampled_from([-3.0, 2.0]), st.integers(0, 100))
def test_the_latency_of_a_sine_is_found_to_ten_milliseconds(latency_s, scale, seed):
    rng = np.random.default_rng(seed)
    arm_s = np.arange(0.0, 8.0, 0.008)
    received_s = np.arange(0.5, 8.0, 1 / 30) + rng.uniform(0, 0.004, 225)
    seen = scale * swing(received_s - latency_s) + 0.1 * rng.standard_normal(225)
    found = signal_latency(received_s, seen, arm_s, swing(arm_s))
    assert found.latency_s == pytest.approx(latency_s, abs=0.015)
    assert found.correlation > 0.9


def test_pictures_of_a_swing_become_its_signal(rng):
    received_s = np.arange(0.5, 8.0, 1 / 15)
    pictures = []
    for position in swing(received_s - 0.13):
        picture = np.full((64, 96, 3), 90, np.uint8)
        left = round(40 + 12 * position)
        picture[20:44, left : left + 16] = 220
        pictures.append(np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8))
    arm_s = np.arange(0.0, 8.0, 0.01)
    found = signal_latency(received_s, picture_motion(pictures), arm_s, swing(arm_s))
    assert found.latency_s == pytest.approx(0.13, abs=0.01)


def test_signals_that_prove_nothing_are_refused(rng):
    times_s = np.arange(0.0, 8.0, 0.03)
    for seen, word in ((rng.standard_normal(len(times_s)), "agree"), (np.zeros(len(times_s)), "does not move")):
        with pytest.raises(RobotError, match=word):
            signal_latency(times_s, seen, times_s, swing(times_s))
    with pytest.raises(RobotError, match="pictures"):
        signal_latency(times_s[:5], times_s[:5], times_s, swing(times_s))
    with pytest.raises(RobotError, match="overlap"):
        signal_latency(times_s[:25], swing(times_s[:25]), times_s, swing(times_s))
