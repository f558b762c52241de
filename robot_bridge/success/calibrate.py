"""What ``calibrate`` computes from what it has measured: empty width, blob thresholds, a camera's latency."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from qtopt.errors import RobotError
from qtopt.types import UInt8Array
from robot_bridge.success.images import change_levels, estimate_gain

CLOSES = 20
PAIRS = 50
_MOST_SIGMA_M = 0.001
_LEAST_AREA_PX = 20
_LEVELS = 15.0, 60.0
"""A pixel's threshold is never lower, where faint shadows would count, and no camera is of use where it is higher."""
_PIXELS_PERCENTILE, _LEVELS_HEADROOM = 99.9, 1.25
_PERCENTILE, _HEADROOM = 99.0, 1.5
_GRID_S = 0.002
_LEAST_CORRELATION = 0.8
_LEAST_SAMPLES = 20
_THUMBNAIL_PX = 32
Signal = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EmptyWidth:
    """What closed, empty fingers report: mean and standard deviation [m]."""

    mean_m: float
    sigma_m: float


@dataclass(frozen=True, slots=True)
class Latency:
    """By how much one signal lags behind another [s], and how well they agree then, 0 to 1."""

    latency_s: float
    correlation: float


def empty_width(widths_m: Sequence[float]) -> EmptyWidth:
    """Learns the empty width from at least twenty closes on nothing [m]; RobotError if they are fewer or too unlike."""
    widths = np.array(widths_m, np.float64)
    if len(widths) < CLOSES:
        raise RobotError(f"found {len(widths)} closes, expected at least {CLOSES}")
    mean, sigma = float(widths.mean()), float(widths.std(ddof=1))
    if not np.isfinite(widths).all() or sigma > _MOST_SIGMA_M:
        raise RobotError(
            f"empty closes differ by {1000 * sigma:.2f} mm (standard deviation), expected at most "
            f"{1000 * _MOST_SIGMA_M:.0f} mm; was something between the fingers?"
        )
    return EmptyWidth(max(0.0, mean), sigma)


def blob_threshold(areas_px: Sequence[int]) -> int:
    """Returns the blob area from which on a change counts: the 99th percentile of untouched pairs plus half of it."""
    _require_pairs(len(areas_px))
    return max(_LEAST_AREA_PX, int(np.ceil(_HEADROOM * np.percentile(areas_px, _PERCENTILE))))


def pixel_threshold(pairs: Sequence[tuple[UInt8Array, UInt8Array]]) -> float:
    """Returns the grey levels from which on a pixel counts as changed, from pairs of pictures of an untouched bin.

    Noise and shaking change a thousandth of a pair's pixels by more than some level; of these levels it is the 99th
    percentile plus a quarter. So a quiet camera sees fainter objects, a restless one none that are not there.

    Args:
        pairs: uint8 (H, W, 3) each.

    Raises:
        RobotError: they are fewer than fifty, or differ so much that no object could be told from that.
    """
    _require_pairs(len(pairs))
    levels = [np.percentile(change_levels(*pair, estimate_gain(*pair)), _PIXELS_PERCENTILE) for pair in pairs]
    found = float(_LEVELS_HEADROOM * np.percentile(levels, _PERCENTILE))
    least, most = _LEVELS
    if found > most:
        raise RobotError(
            f"pictures of the untouched bin differ by {found:.0f} grey levels, expected at most {most:.0f}: fix the "
            "camera's exposure, white balance and focus, fasten it, and keep shadows away"
        )
    return round(max(least, found), 1)


def _require_pairs(count: int) -> None:
    if count < PAIRS:
        raise RobotError(f"found {count} pairs of pictures of an untouched bin, expected at least {PAIRS}")


def picture_motion(pictures: Sequence[UInt8Array]) -> Signal:
    """Reduces N pictures, uint8 (H, W, 3), to one number each, float64 (N,): how far along its swing what moves is.

    It is the first principal component of small grey pictures over time; its sign is arbitrary.
    """
    size = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    small = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA).mean(2).ravel() for picture in pictures]
    rows = np.stack(small).astype(np.float64)
    left, values, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    return np.asarray(left[:, 0] * values[0])


def signal_latency(
    times_s: Signal, values: Signal, reference_times_s: Signal, reference: Signal, longest_s: float = 0.5
) -> Latency:
    """Finds by how much ``values`` lag behind ``reference``, both against one clock, by cross-correlation.

    Args:
        times_s: when each value was received, rising, float64 (N,).
        values: of the picture's motion, float64 (N,); of either sign.
        reference_times_s: when each reference value was true, rising, float64 (M,).
        reference: of the arm's motion, float64 (M,).
        longest_s: lags up to this are tried; less than half of the period where the motion repeats itself, or the
            answer is ambiguous.

    Raises:
        RobotError: too few samples, no motion, or signals that do not agree at any lag.
    """
    if min(len(times_s), len(reference_times_s)) < _LEAST_SAMPLES:
        raise RobotError(f"found {len(times_s)} pictures, expected at least {_LEAST_SAMPLES}; did the camera stop?")
    start = max(times_s[0], reference_times_s[0] + longest_s)
    end = min(times_s[-1], reference_times_s[-1])
    grid = np.arange(start, end, _GRID_S)
    if len(grid) * _GRID_S < 2 * longest_s:
        raise RobotError(
            f"pictures and motion overlap for {end - start:.1f} s, expected more than {2 * longest_s:.1f} s"
        )
    seen = _normal(np.interp(grid, times_s, values))
    lags = np.arange(0.0, longest_s + _GRID_S, _GRID_S)
    agreement = np.array(
        [abs(float((seen * _normal(np.interp(grid - lag, reference_times_s, reference))).mean())) for lag in lags]
    )
    best = int(agreement.argmax())
    if agreement[best] < _LEAST_CORRELATION:
        raise RobotError(
            f"picture and arm agree to {agreement[best]:.2f} at best, expected {_LEAST_CORRELATION}; is the arm in "
            "view and nothing else moving?"
        )
    return Latency(float(lags[best]), float(agreement[best]))


def _normal(signal: Signal) -> Signal:
    """Returns a signal with mean 0 and variance 1; raises RobotError where it stands still."""
    spread = float(signal.std())
    if spread < 1e-12:
        raise RobotError("found a signal that does not move; is the arm in view, and does it swing?")
    return np.asarray((signal - signal.mean()) / spread)
