"""What every camera driver must do, in front of a scene in which something changes or that has noise."""

import time
from typing import ClassVar

import numpy as np
import pytest

from qtopt.errors import StaleFrame
from robot_bridge.contracts import Camera


class CameraContract:
    """Behaviour of a ``Camera``.

    Attributes:
        FRAME_S: at most this long from one frame to the next, on the machine that runs the test.
    """

    FRAME_S: ClassVar[float] = 1.0

    @pytest.fixture
    def camera(self) -> Camera:
        """Returns a started camera."""
        raise NotImplementedError("give a fixture camera: started")

    def test_a_frame_is_a_picture_with_its_times(self, camera: Camera) -> None:
        """RGB of 8 bits, captured before it was received, just now."""
        frame = camera.latest(self.FRAME_S)
        assert frame.rgb.dtype == np.uint8
        assert frame.rgb.ndim == 3
        assert frame.rgb.shape[2] == 3
        assert frame.t_capture_ns <= frame.t_receive_ns <= time.monotonic_ns()
        assert (time.monotonic_ns() - frame.t_capture_ns) * 1e-9 < 2 * self.FRAME_S

    def test_frames_follow_each_other(self, camera: Camera) -> None:
        """A frame captured after now is another one, and counted."""
        first = camera.latest(self.FRAME_S)
        second = camera.latest(self.FRAME_S, time.monotonic_ns())
        assert second.sequence > first.sequence
        assert second.t_capture_ns > first.t_capture_ns
        assert second.settings_hash == first.settings_hash

    def test_a_frame_belongs_to_who_took_it(self, camera: Camera) -> None:
        """Painting on one does not show on the next."""
        first = camera.latest(self.FRAME_S)
        kept = first.rgb.copy()
        second = camera.latest(self.FRAME_S, time.monotonic_ns())
        assert not np.shares_memory(first.rgb, second.rgb)
        assert np.array_equal(first.rgb, kept)

    def test_what_cannot_come_in_time_is_stale(self, camera: Camera) -> None:
        """A picture from the future is not waited for longer than allowed."""
        began_s = time.monotonic()
        with pytest.raises(StaleFrame):
            camera.latest(0.2, time.monotonic_ns() + 3600 * 10**9)
        assert time.monotonic() - began_s < 2.0

    def test_stopping_twice_does_nothing_more(self, camera: Camera) -> None:
        """A stopped camera gives no old picture as a new one."""
        camera.stop()
        camera.stop()
