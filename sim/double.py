"""A double of a cell, made to be photographed.

To pose the arm and to render, a camera writes to the physics world, and even a body without collisions that is moved
there between two time steps changes what happens next in the last digits, then in the first. So a spectator looks at a
second world, in which everything is put where it stands in the first.
"""

from qtopt.config import CameraConfig
from qtopt.types import UInt8Array
from sim.bullet import bullet
from sim.cell import Cell, make_cell
from sim.config import SimConfig


class Double:
    """Photographs a cell without touching it; a ``qtopt.loops.figures.filming.Spectator``.

    Args:
        cell: what is watched.
        config: how that cell was made.
        camera: the spectator's.
        finer: pictures are rendered this many times larger and averaged.
    """

    def __init__(self, cell: Cell, config: SimConfig, camera: CameraConfig, finer: int = 1) -> None:
        self._cell, self._camera, self._finer = cell, camera, finer
        self._double = make_cell(config)

    def begin(self, seed: int) -> None:
        """Sets the scene of an episode that the cell started with ``seed``."""
        self._double.environment.start_episode(seed)

    def picture(self) -> UInt8Array:
        """Returns what the spectator sees now, RGB uint8 (H, W, 3)."""
        here, there = self._cell.world, self._double.world
        for body in here.objects:
            pose = bullet.getBasePositionAndOrientation(body, physicsClientId=here.client)
            bullet.resetBasePositionAndOrientation(body, *pose, physicsClientId=there.client)
        self._double.hand.place(*self._cell.hand.seen())
        return self._double.camera.picture(self._camera, finer=self._finer)

    def close(self) -> None:
        """Frees the double; a second call does nothing."""
        self._double.environment.close()
