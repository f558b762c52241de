"""The 1000 procedural objects that ship with pybullet_data: which are trained on, and the shape of each.

Objects whose number ends in 0 are never trained on. The list is by number, not by what a directory happens to yield.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pybullet_data

from sim.config import ObjectSet

FILE_SCALE = 0.015
"""The scale that the objects' own description files ask for."""
_COUNT = 1000


def object_numbers(objects: ObjectSet) -> list[int]:
    """Returns the numbers of the objects of a set, rising: 900 to train on, 100 unseen."""
    unseen = objects == "unseen"
    return [number for number in range(_COUNT) if (number % 10 == 0) == unseen]


def object_path(number: int) -> Path:
    """Returns the object's description file."""
    name = f"{number:03d}"
    return Path(pybullet_data.getDataPath()) / "random_urdfs" / name / f"{name}.urdf"


@dataclass(frozen=True, slots=True)
class Parts:
    """The convex parts of an object: vertices float64 (V, 3) [m, object frame], where each part's start."""

    vertices: npt.NDArray[np.float64]
    starts: npt.NDArray[np.int64]

    def boxes(
        self, position_m: npt.NDArray[np.float64], rotation: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Returns low and high corners (P, 3) [m] of the box around each part, the object standing at a pose."""
        placed = self.vertices @ rotation.T + position_m
        return np.minimum.reduceat(placed, self.starts), np.maximum.reduceat(placed, self.starts)


@lru_cache(maxsize=_COUNT)
def object_parts(number: int, scale: float) -> Parts:
    """Reads the convex parts of an object from its mesh, at ``scale`` times the file's own size."""
    starts: list[int] = []
    vertices: list[list[float]] = []
    for line in object_path(number).with_suffix(".obj").read_text().splitlines():
        if line.startswith("o "):
            starts.append(len(vertices))
        elif line.startswith("v "):
            vertices.append([float(word) for word in line.split()[1:4]])
    return Parts(np.array(vertices) * (FILE_SCALE * scale), np.array(starts or [0], np.int64))
