"""The path of a picture from camera to network."""

import time

import cv2
import numpy as np
import pytest

from qtopt.errors import ConfigError, RobotError, StaleFrame
from robot_bridge.contracts import Frame
from robot_bridge.view import CellCamera


class Pictures:
    """A camera that has what it has, and remembers what it was asked."""

    def __init__(self, rgb):
        self.rgb, self.asked, self.sequence = rgb, [], 0

    def latest(self, max_age_s, not_before_ns=0):
        self.asked.append((max_age_s, not_before_ns))
        now = time.monotonic_ns()
        if not_before_ns > now:
            raise StaleFrame("too early")
        self.sequence += 1
        return Frame(self.rgb, now, now, self.sequence, "")


@pytest.fixture
def picture(rng):
    picture = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    picture.flags.writeable = False
    return picture


def test_the_middle_square_is_averaged_to_the_networks_size(picture):
    seen = CellCamera(Pictures(picture), size_px=24).capture()
    assert (seen == cv2.resize(picture[:, 8:56], (24, 24), interpolation=cv2.INTER_AREA)).all()


def test_a_crop_of_the_right_size_is_passed_on_and_is_ones_own(picture):
    seen = CellCamera(Pictures(picture), size_px=32, crop=(4, 8, 36, 40)).capture()
    assert (seen == picture[8:40, 4:36]).all()
    seen[:] = 0
    assert picture.any()


def test_without_a_size_all_is_seen(picture):
    assert (CellCamera(Pictures(picture)).capture() == picture).all()


def test_only_pictures_after_standstill_count_and_none_twice(picture):
    still_ns = time.monotonic_ns() - 1_000_000
    camera = Pictures(picture)
    view = CellCamera(camera, max_age_s=0.3, still_since_ns=lambda: still_ns)
    view.capture()
    first = view.last
    view.capture()
    assert camera.asked == [(0.3, still_ns), (0.3, first.t_capture_ns + 1)]
    with pytest.raises(StaleFrame):
        CellCamera(camera, still_since_ns=lambda: time.monotonic_ns() + 10**9).capture()


def test_crops_that_cannot_work_are_refused(picture):
    with pytest.raises(ConfigError, match="square"):
        CellCamera(Pictures(picture), size_px=24, crop=(0, 0, 10, 20))
    with pytest.raises(RobotError, match="too small"):
        CellCamera(Pictures(picture), crop=(0, 0, 65, 20)).capture()
