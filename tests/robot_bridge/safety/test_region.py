"""Where the tool may be, and which straight ways stay there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_bridge.safety.region import Region
from tests.robot_bridge.safety.cells import cell

CELL = cell()
REGION = Region(CELL.bin, CELL.limits)
coordinate = st.floats(-3, 3)
point = st.tuples(st.floats(0.0, 1.2), st.floats(-0.6, 0.6), st.floats(-0.1, 0.7))


@pytest.mark.parametrize(
    ("place", "outside_m"),
    [
        ((0.57, 0.0, 0.0151), 0.0),
        ((0.57, 0.0, 0.005), 0.010),  # the hard floor is 3 mm above the bin's
        ((0.73, 0.0, 0.10), 0.030),
        ((0.73, 0.0, 0.16), 0.0),  # 50 mm above the rim
        ((0.73, 0.0, 0.155), 0.005),
        ((0.99, 0.0, 0.3), 0.020),
        ((0.57, 0.0, 0.61), 0.100),
    ],
)
def test_distances_by_hand(place, outside_m):
    assert REGION.outside_m(place) == pytest.approx(outside_m, abs=1e-9)


def test_the_soft_floor_is_higher_than_the_hard_one():
    assert REGION.clamp((0.57, 0.0, 0.0)) == pytest.approx((0.57, 0.0, 0.020))


@given(coordinate, coordinate, coordinate)
def test_what_is_clamped_is_inside_and_stays(x_m, y_m, z_m):
    inside = REGION.clamp((x_m, y_m, z_m))
    assert REGION.outside_m(inside) == 0.0
    assert REGION.clamp(inside) == inside


@given(point, point)
def test_a_free_way_never_leaves_the_region(start, end):
    start, end = REGION.clamp(start), REGION.clamp(end)
    way = np.linspace(start, end, 200)
    outside = max(REGION.outside_m(tuple(place)) for place in way.tolist())
    if REGION.is_straight_way_free(start, end):
        assert outside <= 1e-8
    else:
        # Between the samples a way may cut a corner; of those that were refused, none is free on a fine look.
        fine = np.linspace(start, end, 20_000)
        assert max(REGION.outside_m(tuple(place)) for place in fine.tolist()) > 0.0
