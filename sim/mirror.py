"""A scene drawn in a world of its own, apart from the physics that it is taken from.

Rendering holds the interpreter for tens of milliseconds; a plant that must answer a hundred times a second cannot wait
for it. So it tells another process where everything is, and that process draws.
"""

import json
from dataclasses import asdict, dataclass

from qtopt.config import CameraConfig
from qtopt.types import UInt8Array
from robot_bridge.robot import ToolPose
from sim.bullet import bullet
from sim.camera import SimCamera, View
from sim.furniture import add_visuals
from sim.hand import Hand
from sim.world import World


@dataclass(frozen=True, slots=True)
class Seen:
    """An object: its number in the set, its centre of mass [m] and its quaternion (x, y, z, w), base frame."""

    number: int
    position_m: tuple[float, float, float]
    orientation: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """Where everything is that moves.

    Attributes:
        tool: the tool point.
        width_m: opening between the fingers.
        objects: those in the world.
        filling: counts how often the bin was filled.
    """

    tool: ToolPose
    width_m: float
    objects: tuple[Seen, ...]
    filling: int = 0

    def to_json(self) -> str:
        """Returns it as a line of text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> "Scene":
        """Returns what ``to_json`` made a line of."""
        values = json.loads(line)
        objects = tuple(Seen(each["number"], each["position_m"], each["orientation"]) for each in values["objects"])
        return Scene(ToolPose(**values["tool"]), values["width_m"], objects, values["filling"])


class Mirror:
    """Draws scenes; used by one thread.

    Args:
        camera: the camera.
        object_scale: size of the objects against their files' own.
    """

    def __init__(self, camera: CameraConfig, object_scale: float = 1.0) -> None:
        self._scale, self._view = object_scale, View(camera.position_m, camera.target_m)
        self._world = World()
        self._hand = Hand(self._world)
        self._camera = SimCamera(self._world, self._hand, camera)
        self._bodies: dict[int, int] = {}
        self._filling = -1

    def draw(self, scene: Scene) -> UInt8Array:
        """Returns what the camera sees of a scene: RGB, uint8 (H, W, 3)."""
        if scene.filling != self._filling or {each.number for each in scene.objects} != self._bodies.keys():
            self._build(scene)
        for each in scene.objects:
            bullet.resetBasePositionAndOrientation(
                self._bodies[each.number], each.position_m, each.orientation, physicsClientId=self._world.client
            )
        self._hand.place(scene.tool, scene.width_m)
        return self._camera.capture()

    def close(self) -> None:
        """Frees the world; a second call does nothing."""
        self._world.close()

    def _build(self, scene: Scene) -> None:
        self._world.rebuild()
        self._hand.rebuild()
        self._camera.rebuild(self._view)
        self._bodies = {
            each.number: self._world.add_object(each.number, each.position_m, each.orientation, scale=self._scale)
            for each in scene.objects
        }
        add_visuals(self._world.client)
        self._filling = scene.filling
