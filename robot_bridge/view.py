"""What a network or a judge sees: pictures of a camera, taken after the arm stood still, cut and shrunk."""

import time
from collections.abc import Callable

import cv2
import numpy as np

from qtopt.errors import ConfigError, RobotError
from qtopt.types import UInt8Array
from robot_bridge.contracts import Camera, Frame

Crop = tuple[int, int, int, int]


class CellCamera:
    """A ``Camera`` as a ``robot_bridge.robot.ImageSource``.

    Args:
        camera: started by whoever made it.
        size_px: height and width of the pictures; None leaves them as they are.
        crop: left, top, right, bottom [pixels of the camera]; None takes the middle square where ``size_px`` is set.
        max_age_s: no picture older than this is given out; also the longest wait for one.
        still_since_ns: when the arm came to rest (monotonic); without it only what is captured after the call counts.
    """

    def __init__(
        self,
        camera: Camera,
        size_px: int | None = None,
        crop: Crop | None = None,
        max_age_s: float = 0.5,
        still_since_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if size_px is not None and crop is not None and crop[2] - crop[0] != crop[3] - crop[1]:
            raise ConfigError(f"crop is {list(crop)}, expected a square: the network's pictures are square")
        self._camera, self._size_px, self._crop, self._max_age_s = camera, size_px, crop, max_age_s
        self._still_since_ns = still_since_ns
        self.last: Frame | None = None
        """The frame behind the newest picture: its times, its settings."""

    def capture(self) -> UInt8Array:
        """Returns a picture that no earlier call returned, RGB uint8 (H, W, 3), taken after the arm stood still.

        Raises:
            StaleFrame, FrozenFrame: the camera gives nothing new.
            RobotError: the picture is dark, saturated or too small for the crop.
        """
        after_ns = 0 if self.last is None else self.last.t_capture_ns + 1
        frame = self.last = self._camera.latest(self._max_age_s, max(self._still_since_ns(), after_ns))
        left, top, right, bottom = self._crop or self._everything(frame.rgb)
        if right > frame.rgb.shape[1] or bottom > frame.rgb.shape[0]:
            raise RobotError(f"pictures are {frame.rgb.shape[1::-1]} pixels, too small for the crop {self._crop}")
        cut = frame.rgb[top:bottom, left:right]
        if self._size_px is None or cut.shape[0] == self._size_px:
            return cut.copy()
        size = (self._size_px, self._size_px)
        return np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _everything(self, rgb: UInt8Array) -> Crop:
        height, width = rgb.shape[:2]
        if self._size_px is None:
            return 0, 0, width, height
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side
