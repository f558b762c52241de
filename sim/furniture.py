"""Table and bin: what objects lie on and bump into, and how it looks.

Shapes for physics and shapes for the eye are separate bodies, because the renderer draws bodies in the order in which
they were made and skips a pixel that something nearer has taken: drawn last, table and floor cost only the pixels that
show.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sim.bullet import bullet

BIN_CENTRE_M = (0.60, 0.0)
BIN_HALF_M = 0.15
"""Half the inner side of the (square) bin."""
WALL_HEIGHT_M = 0.05
_WALL_M = 0.012
_FRICTION = 0.8
_TABLE_M = 0.9
_TABLE_Z_M = -0.012
_COLOURS = {
    "wall": (0.45, 0.46, 0.50, 1.0),
    "floor": (0.62, 0.60, 0.56, 1.0),
}
Boxes = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def wall_boxes() -> Boxes:
    """Returns low and high corners (4, 3) [m] of the bin's walls."""
    x, y = BIN_CENTRE_M
    inner, outer = BIN_HALF_M, BIN_HALF_M + _WALL_M
    low = [(-outer, -outer, 0.0), (inner, -outer, 0.0), (-inner, -outer, 0.0), (-inner, inner, 0.0)]
    high = [
        (-inner, outer, WALL_HEIGHT_M),
        (outer, outer, WALL_HEIGHT_M),
        (inner, -inner, WALL_HEIGHT_M),
        (inner, outer, WALL_HEIGHT_M),
    ]
    centre = np.array([x, y, 0.0])
    return np.array(low) + centre, np.array(high) + centre


def _looks() -> list[tuple[str, npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Returns kind, low and high corner of every box, nearest to the camera first."""
    x, y = BIN_CENTRE_M
    outer = BIN_HALF_M + _WALL_M
    boxes = [("wall", low, high) for low, high in zip(*wall_boxes(), strict=True)]
    floor = np.array([[x - outer, y - outer, -0.01], [x + outer, y + outer, 0.0]])
    table = np.array([[x - _TABLE_M, y - _TABLE_M, _TABLE_Z_M - 0.02], [x + _TABLE_M, y + _TABLE_M, _TABLE_Z_M]])
    return [*boxes, ("floor", floor[0], floor[1]), ("table", table[0], table[1])]


def add_collisions(client: int) -> None:
    """Adds the boxes that stop objects and fingers; the floor is thick, so nothing passes through it."""
    # Without a visual of its own a body shows its collision shape: a speck inside the table hides it.
    speck = bullet.createVisualShape(bullet.GEOM_BOX, halfExtents=[1e-5] * 3, physicsClientId=client)
    for kind, low, high in _looks():
        low = low - np.array([0.0, 0.0, 0.05 if kind == "wall" else 0.1])
        shape = bullet.createCollisionShape(
            bullet.GEOM_BOX, halfExtents=((high - low) / 2).tolist(), physicsClientId=client
        )
        body = bullet.createMultiBody(0.0, shape, speck, ((high + low) / 2).tolist(), physicsClientId=client)
        bullet.changeDynamics(body, -1, lateralFriction=_FRICTION, physicsClientId=client)


def add_visuals(client: int, rng: np.random.Generator | None = None) -> None:
    """Adds what the camera sees of table and bin; with ``rng`` in random colours and patterns.

    A plain table is white and needs no body: the renderer's background is white, and shading half the image costs a
    third of a frame's time.
    """
    for kind, low, high in _looks():
        if kind == "table" and rng is None:
            continue
        colour = _COLOURS[kind] if rng is None else random_colour(rng)
        centre, half = (high + low) / 2, (high - low) / 2
        if kind == "wall":
            shape = bullet.createVisualShape(
                bullet.GEOM_BOX, halfExtents=half.tolist(), rgbaColor=colour, physicsClientId=client
            )
        else:
            shape = _upper_side(half, colour, client)
        body = bullet.createMultiBody(0.0, -1, shape, centre.tolist(), physicsClientId=client)
        if rng is not None and kind != "wall":
            texture = _load_texture(_pattern(rng), client)
            bullet.changeVisualShape(body, -1, textureUniqueId=texture, physicsClientId=client)


def _upper_side(half: npt.NDArray[np.float64], colour: tuple[float, float, float, float], client: int) -> int:
    """Returns a shape of two triangles: for each triangle the renderer visits every pixel of the box around it."""
    x, y, z = half.tolist()
    shape: int = bullet.createVisualShape(
        bullet.GEOM_MESH,
        vertices=[[-x, -y, z], [x, -y, z], [x, y, z], [-x, y, z]],
        indices=[0, 1, 2, 0, 2, 3],
        normals=[[0.0, 0.0, 1.0]] * 4,
        uvs=[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]],
        rgbaColor=colour,
        physicsClientId=client,
    )
    return shape


def random_colour(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Returns red, green, blue and an opacity of 1."""
    red, green, blue = rng.uniform(0.1, 0.95, 3).tolist()
    return red, green, blue, 1.0


def _pattern(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Returns blotches of two colours, uint8 (64, 64, 3)."""
    coarse = rng.random((int(rng.integers(2, 12)), int(rng.integers(2, 12))))
    share = cv2.resize(coarse, (64, 64), interpolation=int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_LINEAR])))[
        ..., None
    ]
    one, two = rng.uniform(25, 245, (2, 3))
    blotches: npt.NDArray[np.uint8] = (share * one + (1 - share) * two).astype(np.uint8)
    return blotches


def _load_texture(pattern: npt.NDArray[np.uint8], client: int) -> int:
    """Hands a picture to the renderer, which reads files only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pattern.png"
        cv2.imwrite(str(path), pattern)
        texture: int = bullet.loadTexture(str(path), physicsClientId=client)
    return texture
