"""The real simulator seen through a bad camera, for tests of the judge."""

import dataclasses

import cv2
import numpy as np

from qtopt.config import CameraConfig
from robot_bridge.success_config import SuccessConfig
from sim import SimConfig
from sim.bullet import bullet
from sim.cell import make_cell
from sim.config import Randomisation

SIZE_PX = 256
CLEAR_M = (0.35, -0.45, 0.30)
NO_WAITING = SuccessConfig(drop_height_m=0.08, check_wait_s=0.0, clear_wait_s=0.0, settle_s=0.0)


@dataclasses.dataclass
class Defects:
    """What is wrong with a picture: as in the synthetic study, and what no picture should be trusted after."""

    noise: float = 3.0
    gain: float = 0.03
    shake_px: float = 0.4
    exposure: float = 1.0
    shift_px: int = 0


def photograph(clean, defects, rng):
    """A clean picture as a camera on an arm's table takes it."""
    dx, dy = rng.uniform(-defects.shake_px, defects.shake_px, 2)
    matrix = np.array([[1.0, 0.0, dx + defects.shift_px], [0.0, 1.0, dy]])
    moved = cv2.warpAffine(clean, matrix, clean.shape[1::-1], borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    moved *= defects.exposure * (1.0 + rng.uniform(-defects.gain, defects.gain))
    moved += np.float32(defects.noise) * rng.standard_normal(moved.shape, np.float32)
    jpeg = cv2.imencode(".jpg", np.clip(moved + 0.5, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)


class BadCamera:
    """An ``ImageSource`` over the simulator's camera; renders once for each state of the world."""

    def __init__(self, cell, seed=0):
        self._cell, self._rng = cell, np.random.default_rng(seed)
        self._clean, self._state = None, None
        self.defects = Defects()

    def capture(self):
        world = self._cell.world
        poses = [bullet.getBasePositionAndOrientation(body, physicsClientId=world.client) for body in world.objects]
        state = (self._cell.hand.pose(), poses)
        if state != self._state:
            self._clean, self._state = self._cell.camera.capture(), state
        return photograph(self._clean, self.defects, self._rng)


def simulated_cell(seed=0, *, objects=(3, 8), plain=False):
    """A cell with a camera of 256 pixels, its light and textures drawn for each bin unless ``plain``."""
    randomisation = Randomisation() if plain else Randomisation(light=True, textures=True)
    camera = CameraConfig(size_px=SIZE_PX)
    config = SimConfig(object_count=objects, camera=camera, fresh_scene_every_episode=True, randomisation=randomisation)
    return make_cell(config, seed)
