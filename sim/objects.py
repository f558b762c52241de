"""The objects that a bin can hold, all of them files of pybullet_data: which are trained on, and the shape of each.

Numbers 0 to 999 are the procedural ones; those that end in 0 are never trained on. From 1000 on come everyday shapes
that are no relatives of them: ``other``. The lists are by number, not by what a directory happens to yield.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pybullet_data

from sim.bullet import bullet
from sim.config import ObjectSet

Points = npt.NDArray[np.float64]

_PROCEDURAL = 1000


@dataclass(frozen=True, slots=True)
class Model:
    """An object's description file, below pybullet_data, and the scale that makes it fit the gripper."""

    file: str
    scale: float = 1.0


OTHER = (
    Model("duck_vhacd.urdf", 0.8),
    Model("teddy_vhacd.urdf", 0.7),
    Model("urdf/mug.urdf", 0.6),
    Model("lego/lego.urdf", 1.4),
    Model("domino/domino.urdf", 1.55),
    Model("jenga/jenga.urdf", 0.5),
    Model("block.urdf", 0.8),
    Model("cube_small.urdf", 0.6),
    Model("cube.urdf", 0.05),
    Model("sphere_small.urdf", 0.7),
    Model("soccerball.urdf", 0.06),
    Model("sphere8cube.urdf", 0.05),
)
"""Objects outside the procedural family, 3 to 8 cm long, numbered from 1000 on."""

_MODELS = (*(Model(f"random_urdfs/{number:03d}/{number:03d}.urdf") for number in range(_PROCEDURAL)), *OTHER)
_SETS: dict[ObjectSet, list[int]] = {
    "train": [number for number in range(_PROCEDURAL) if number % 10 != 0],
    "unseen": list(range(0, _PROCEDURAL, 10)),
    "other": list(range(_PROCEDURAL, len(_MODELS))),
}


def object_numbers(objects: ObjectSet) -> list[int]:
    """Returns the numbers of the objects of a set, rising: 900 to train on, 100 unseen, the rest of other kinds."""
    return list(_SETS[objects])


def object_path(number: int) -> Path:
    """Returns the object's description file."""
    return Path(pybullet_data.getDataPath()) / _MODELS[number].file


def object_scale(number: int) -> float:
    """Returns the size at which the object is used, against its file's own."""
    return _MODELS[number].scale


@dataclass(frozen=True, slots=True)
class Parts:
    """The convex parts of an object: vertices float64 (V, 3) [m, from its centre of mass], where each part's start."""

    vertices: Points
    starts: npt.NDArray[np.int64]

    def boxes(self, position_m: Points, rotation: Points) -> tuple[Points, Points]:
        """Returns low and high corners (P, 3) [m] of the box around each part, the object standing at a pose."""
        placed = self.vertices @ rotation.T + position_m
        return np.minimum.reduceat(placed, self.starts), np.maximum.reduceat(placed, self.starts)


@lru_cache(maxsize=len(_MODELS))
def object_parts(number: int, scale: float) -> Parts:
    """Reads the convex parts of an object from its description, at ``scale`` times the size at which it is used."""
    path = object_path(number)
    link = ElementTree.parse(path).getroot().find("link")
    if link is None:
        raise ValueError(f"{path}: found no link, expected the description of one rigid body")
    centre, _ = _origin(link.find("inertial"))
    parts: list[Points] = []
    for collision in link.findall("collision"):
        offset, rotation = _origin(collision)
        for shape in collision.iterfind("geometry/*"):
            parts += [part @ rotation.T + offset - centre for part in _SHAPES[shape.tag](shape, path.parent)]
    sizes = [len(part) for part in parts]
    starts = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
    return Parts(np.concatenate(parts) * (object_scale(number) * scale), starts)


def _mesh(shape: ElementTree.Element, folder: Path) -> list[Points]:
    """The parts of a Wavefront file, a convex hull each."""
    parts: list[list[list[float]]] = [[]]
    for line in (folder / shape.attrib["filename"]).read_text().splitlines():
        if line.startswith("o ") and parts[-1]:
            parts.append([])
        elif line.startswith("v "):
            parts[-1].append([float(word) for word in line.split()[1:4]])
    return [np.array(part) * _numbers(shape, "scale", "1 1 1") for part in parts]


def _box(shape: ElementTree.Element, _: Path) -> list[Points]:
    return [_CORNERS * _numbers(shape, "size") / 2]


def _sphere(shape: ElementTree.Element, _: Path) -> list[Points]:
    """The corners of the cube around it, which enclose it however it is turned."""
    return [_CORNERS * _numbers(shape, "radius")]


_CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
_SHAPES: dict[str, Callable[[ElementTree.Element, Path], list[Points]]] = {
    "mesh": _mesh,
    "box": _box,
    "sphere": _sphere,
}


def _origin(element: ElementTree.Element | None) -> tuple[Points, Points]:
    """Returns the translation (3,) [m] and the rotation (3, 3) of a description's element."""
    origin = None if element is None else element.find("origin")
    if origin is None:
        return np.zeros(3), np.eye(3)
    quaternion = bullet.getQuaternionFromEuler(_numbers(origin, "rpy", "0 0 0").tolist())
    return _numbers(origin, "xyz", "0 0 0"), np.array(bullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)


def _numbers(element: ElementTree.Element, name: str, default: str = "") -> Points:
    return np.array([float(word) for word in element.get(name, default).split()])
