"""Where the bin is in a camera's picture."""

import cv2
import numpy as np

from qtopt.config import CameraConfig
from sim.furniture import BIN_CENTRE_M, BIN_HALF_M, WALL_HEIGHT_M

REACH_M = 0.13
"""Objects in the bin reach up to about here."""


def bin_region(camera: CameraConfig) -> tuple[tuple[int, int], ...]:
    """Returns the corners [pixels x, y] of the bin with what stands in it, as ``[success] bin_region`` has them."""
    x, y = BIN_CENTRE_M
    corners = [
        (x + a * BIN_HALF_M, y + b * BIN_HALF_M, z) for a in (-1, 1) for b in (-1, 1) for z in (WALL_HEIGHT_M, REACH_M)
    ]
    u, v, w = camera.projection() @ np.array([(*corner, 1.0) for corner in corners]).T
    pixels = np.clip(np.stack([u / w, v / w], 1), 0, camera.size_px - 1)
    return tuple((int(a), int(b)) for a, b in cv2.convexHull(pixels.astype(np.int32))[:, 0].tolist())
