"""Did something change between two pictures of a bin? Pure functions of arrays.

A mean over the picture cannot see an object of a thousand pixels in the noise of a hundred thousand. What can is the
largest connected area that changed, after the brightness of both pictures was made equal, noise was blurred away and
single pixels were dropped. The surroundings of the bin are compared too: where they changed as well, somebody moved
the camera, walked past or switched a lamp, and the picture proves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from qtopt.errors import ConfigError, RobotError
from qtopt.types import BoolArray, UInt8Array
from robot_bridge.success_config import Polygon, SuccessConfig

_BLUR_PX = 2.0
_USABLE = (16, 250)
"""Grey levels that say how bright the light is: neither lost in the dark nor saturated."""
_FEWEST_USABLE = 50
_SATURATED = 254.0
_KERNEL = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Change:
    """What differs between two pictures.

    Attributes:
        area_px: largest changed blob within the bin [pixels].
        control_px: largest one in the surroundings.
        gain: brightness of the second against the first, per channel: red, green, blue.
    """

    area_px: int
    control_px: int
    gain: tuple[float, float, float]


def median_picture(pictures: Sequence[UInt8Array]) -> UInt8Array:
    """Returns the pixel-wise median of pictures, uint8 (H, W, 3) each. Raises RobotError where their sizes differ."""
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1:
        raise RobotError(f"found pictures of {sorted(shapes)}, expected one size; did the camera change its settings?")
    if len(pictures) == 1:
        return pictures[0]
    return np.asarray(np.median(np.stack(pictures), axis=0) + 0.5, np.uint8)


def compare(before: UInt8Array, after: UInt8Array, config: SuccessConfig) -> Change:
    """Compares two pictures of the bin, uint8 (H, W, 3), the arm out of view in both."""
    if before.shape != after.shape:
        raise RobotError(f"pictures are {before.shape} and {after.shape}, expected one size")
    inside, around = regions(before.shape[:2], config.bin_region, config.control_margin_px)
    gain = estimate_gain(before, after)
    changed = changed_pixels(before, after, gain, config.diff_t)
    area, control = (largest_blob_px(changed & region) for region in (inside, around))
    red, green, blue = gain.tolist()
    return Change(area, control, (red, green, blue))


def regions(shape: tuple[int, int], polygon: Polygon, margin_px: int) -> tuple[BoolArray, BoolArray]:
    """Returns which pixels (H, W) are the bin's and which its surroundings'; without a polygon all are the bin's."""
    if not polygon:
        return np.ones(shape, np.bool_), np.zeros(shape, np.bool_)
    corners = np.array(polygon, np.int32)
    if corners.min() < 0 or (corners > np.array(shape[::-1])).any():
        raise ConfigError(f"bin_region reaches beyond the picture of {shape[1]} x {shape[0]} pixels: {polygon}")
    inside = np.zeros(shape, np.uint8)
    cv2.fillPoly(inside, [corners], 1)
    wide = cv2.dilate(inside, np.ones((2 * margin_px + 1, 2 * margin_px + 1), np.uint8))
    return inside.astype(np.bool_), wide == 0


def estimate_gain(before: UInt8Array, after: UInt8Array) -> npt.NDArray[np.float64]:
    """Returns how much brighter the second picture is, per channel (3,): the median ratio of its usable pixels.

    An object that came or went covers the smaller part of the picture and does not move a median. A channel without
    usable pixels, black or saturated, counts as unchanged.
    """
    low, high = _USABLE
    usable = (before >= low) & (before <= high) & (after >= low) & (after <= high)
    gain = np.ones(3)
    for channel in range(3):
        chosen = usable[..., channel]
        if chosen.sum() >= _FEWEST_USABLE:
            ratio = after[..., channel][chosen] / before[..., channel][chosen].astype(np.float64)
            gain[channel] = np.median(ratio)
    return gain


def changed_pixels(before: UInt8Array, after: UInt8Array, gain: npt.NDArray[np.float64], threshold: float) -> BoolArray:
    """Returns which pixels (H, W) changed by more than ``threshold`` grey levels in any channel, brightness aside."""
    changed = (change_levels(before, after, gain) > threshold).astype(np.uint8)
    return cv2.morphologyEx(changed, cv2.MORPH_OPEN, _KERNEL).astype(np.bool_)


def change_levels(
    before: UInt8Array, after: UInt8Array, gain: npt.NDArray[np.float64]
) -> npt.NDArray[np.floating[Any]]:
    """Returns by how many grey levels each pixel (H, W) changed at most in any channel, brightness and noise aside."""
    first = np.minimum(before * gain.astype(np.float32), 255.0)
    second = after.astype(np.float32)
    # Where either picture is saturated, the light that was cut off is no change.
    cut_off = (before >= _SATURATED) & (second >= _SATURATED * np.minimum(gain, 1.0))
    levels = np.where(cut_off, 0.0, np.abs(cv2.GaussianBlur(second - first, (0, 0), _BLUR_PX)))
    return np.asarray(levels.max(2))


def largest_blob_px(pixels: BoolArray) -> int:
    """Returns the size of the largest connected set of true pixels (H, W); neighbours touch at sides or corners."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max()) if count > 1 else 0
