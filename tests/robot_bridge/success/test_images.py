"""The comparison of pictures: by hand, and for whatever pictures there are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.errors import ConfigError, RobotError
from robot_bridge.success.images import compare, estimate_gain, largest_blob_px, median_picture, regions
from robot_bridge.success_config import SuccessConfig

SIZE = 96
REGION = ((16, 16), (80, 16), (80, 80), (16, 80))
CONFIG = SuccessConfig(bin_region=REGION, diff_area_px=60, control_area_px=60)


def table(seed=0, noise=3.0):
    rng = np.random.default_rng(seed)
    ramp = np.linspace(80, 160, SIZE)[None, :, None] * np.ones((SIZE, 1, 3))
    return np.clip(ramp + rng.normal(0, noise, ramp.shape), 0, 255).astype(np.uint8)


def with_square(picture, left, top, side=14, colour=(200, 40, 40)):
    changed = picture.copy()
    changed[top : top + side, left : left + side] = colour
    return changed


def test_nothing_changed_is_no_change():
    change = compare(table(0), table(1), CONFIG)
    assert (change.area_px, change.control_px) == (0, 0)


@given(st.integers(24, 58), st.integers(24, 58), st.floats(0.9, 1.1))
def test_an_object_is_found_wherever_it_lies_and_however_bright_it_is(left, top, gain):
    after = np.clip(with_square(table(1), left, top) * gain, 0, 255).astype(np.uint8)
    change = compare(table(0), after, CONFIG)
    assert 120 < change.area_px < 420
    assert change.control_px == 0
    assert change.gain == pytest.approx((gain,) * 3, abs=0.02)


@given(st.floats(0.5, 1.5), st.integers(0, 10))
def test_brightness_alone_is_never_an_object(gain, seed):
    after = np.clip(table(seed) * gain, 0, 255).astype(np.uint8)
    assert compare(table(seed + 20), after, CONFIG).area_px < CONFIG.diff_area_px


def test_a_change_outside_shows_in_the_control_region_alone():
    change = compare(table(0), with_square(table(1), 0, 40, 10), CONFIG)
    assert change.area_px == 0
    assert change.control_px > 60


def test_regions_are_apart_by_the_margin():
    inside, around = regions((SIZE, SIZE), REGION, 6)
    assert inside[48, 48]
    assert around[48, 5]
    assert not inside[48, 12]
    assert not around[48, 12]
    everything, nothing = regions((SIZE, SIZE), (), 6)
    assert everything.all()
    assert not nothing.any()


def test_a_region_beyond_the_picture_is_refused():
    with pytest.raises(ConfigError):
        regions((50, 50), REGION, 6)


def test_the_gain_survives_an_object_and_saturation():
    before = table(0)
    after = with_square((before * 0.8).astype(np.uint8), 20, 20, 30)
    assert estimate_gain(before, after) == pytest.approx((0.8,) * 3, abs=0.02)
    white = np.full((SIZE, SIZE, 3), 255, np.uint8)
    assert estimate_gain(white, white).tolist() == [1.0, 1.0, 1.0]


def test_the_largest_blob_counts_corners_and_not_the_sum():
    pixels = np.zeros((10, 10), bool)
    assert largest_blob_px(pixels) == 0
    pixels[0, 0] = pixels[1, 1] = pixels[2, 2] = True
    pixels[8, 8] = pixels[8, 9] = True
    assert largest_blob_px(pixels) == 3


def test_the_median_ignores_one_bad_picture():
    good, bad = table(0), np.zeros((SIZE, SIZE, 3), np.uint8)
    assert (median_picture([good, bad, good]) == good).all()
    with pytest.raises(RobotError):
        median_picture([good, bad[:50]])
    with pytest.raises(RobotError):
        compare(good, bad[:50], CONFIG)
