"""The over-the-shoulder camera: TinyRenderer on the CPU, and the arm as it sees it."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from qtopt.config import CameraConfig
from qtopt.types import UInt8Array
from sim.arm import joint_angles, link_mesh, link_poses
from sim.bullet import bullet
from sim.hand import Hand
from sim.world import World

_SEEN_LINKS = (3, 4, 5, 6, 7)
_NEAR_M, _FAR_M = 0.1, 3.0
Matrix = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera stands and how the light falls, as drawn for a bin."""

    position_m: tuple[float, float, float]
    target_m: tuple[float, float, float]
    light_direction: tuple[float, float, float] = (0.3, 0.5, 1.0)
    ambient: float = 0.55
    diffuse: float = 0.45
    shadow: bool = False


class SimCamera:
    """Renders the world from a ``View``; also keeps the arm's visible links where the hand is."""

    def __init__(self, world: World, hand: Hand, config: CameraConfig) -> None:
        self._world, self._hand, self._config = world, hand, config
        self._links: list[int] = []
        self._kept: UInt8Array | None = None
        self.rebuild(View(config.position_m, config.target_m))

    def rebuild(self, view: View) -> None:
        """Builds the visible arm in a world that was emptied, and moves the camera."""
        client, size = self._world.client, self._config.size_px
        self._links = []
        for number in _SEEN_LINKS:
            vertices, indices = link_mesh(number)
            shape = bullet.createVisualShape(
                bullet.GEOM_MESH,
                vertices=vertices,
                indices=indices,
                rgbaColor=(0.85, 0.42, 0.10, 1.0) if number % 2 else (0.35, 0.36, 0.38, 1.0),
                physicsClientId=client,
            )
            self._links.append(bullet.createMultiBody(0.0, -1, shape, [0, 0, 0], physicsClientId=client))
        self._view = view
        self._view_matrix = bullet.computeViewMatrix(view.position_m, view.target_m, (0.0, 0.0, 1.0))
        self._projection = bullet.computeProjectionMatrixFOV(self._config.fov_deg, 1.0, _NEAR_M, _FAR_M)
        self._size, self._kept = size, None

    def capture(self) -> UInt8Array:
        """Returns the frame kept by ``keep`` if there is one, else what the camera sees now: RGB, uint8 (H, W, 3)."""
        kept, self._kept = self._kept, None
        return kept if kept is not None else self._render()

    def keep(self) -> None:
        """Takes the frame that the next ``capture`` will return: a late camera."""
        self._kept = self._render()

    def picture(self, camera: CameraConfig, *, finer: int = 2) -> UInt8Array:
        """Returns what another camera would see now, RGB uint8 (H, W, 3): for people, with shadows and smooth edges.

        Args:
            camera: that camera.
            finer: rendered this many times larger and averaged.
        """
        matrix = bullet.computeViewMatrix(camera.position_m, camera.target_m, (0.0, 0.0, 1.0))
        projection = bullet.computeProjectionMatrixFOV(camera.fov_deg, 1.0, _NEAR_M, _FAR_M)
        large = self._image(camera.size_px * finer, matrix, projection, shadow=True)
        size = (camera.size_px, camera.size_px)
        return np.asarray(cv2.resize(large, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _render(self) -> UInt8Array:
        return self._image(self._size, self._view_matrix, self._projection, shadow=self._view.shadow)

    def _image(self, size: int, matrix: Matrix, projection: Matrix, *, shadow: bool) -> UInt8Array:
        self._pose_arm()
        view = self._view
        pixels = bullet.getCameraImage(
            size,
            size,
            matrix,
            projection,
            lightDirection=view.light_direction,
            lightAmbientCoeff=view.ambient,
            lightDiffuseCoeff=view.diffuse,
            lightSpecularCoeff=0.05,
            shadow=int(shadow),
            renderer=bullet.ER_TINY_RENDERER,
            flags=bullet.ER_NO_SEGMENTATION_MASK,
            physicsClientId=self._world.client,
        )[2]
        frame: npt.NDArray[np.uint8] = np.asarray(pixels, np.uint8).reshape(size, size, 4)[..., :3].copy()
        return frame

    def _pose_arm(self) -> None:
        poses = link_poses(joint_angles(self._hand.pose()))
        for number, body in zip(_SEEN_LINKS, self._links, strict=True):
            pose = poses[number]
            bullet.resetBasePositionAndOrientation(
                body, pose[:3, 3].tolist(), quaternion(pose), physicsClientId=self._world.client
            )


def quaternion(pose: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Returns the quaternion (x, y, z, w) of a pose (4, 4); of the four formulae the one with the largest divisor."""
    m = pose
    terms = np.array(
        [
            1.0 + m[0, 0] - m[1, 1] - m[2, 2],
            1.0 - m[0, 0] + m[1, 1] - m[2, 2],
            1.0 - m[0, 0] - m[1, 1] + m[2, 2],
            1.0 + m[0, 0] + m[1, 1] + m[2, 2],
        ]
    )
    rows = (
        (terms[0], m[1, 0] + m[0, 1], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]),
        (m[1, 0] + m[0, 1], terms[1], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]),
        (m[0, 2] + m[2, 0], m[2, 1] + m[1, 2], terms[2], m[1, 0] - m[0, 1]),
        (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], terms[3]),
    )
    largest = int(np.argmax(terms))
    scale = 2.0 * float(np.sqrt(terms[largest]))
    x, y, z, w = (float(value) / scale for value in rows[largest])
    return x, y, z, w
