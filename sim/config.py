"""The configuration of a simulated cell."""

from dataclasses import dataclass, field
from typing import Literal

from qtopt.config import STRICT, CameraConfig
from qtopt.errors import ConfigError
from robot_bridge.config import CellConfig

ObjectSet = Literal["train", "unseen", "other"]


@dataclass(frozen=True)
class Randomisation:
    """How much the world differs from one refill of the bin to the next. Everything is off (0 or False) by default.

    Attributes:
        camera_position_m: the optical centre moves by up to this along each axis.
        camera_target_m: the same for the point that is looked at.
        light: the direction of the light, its share and shadows change.
        textures: table, bin and objects get random colours, table and floor random patterns.
        friction: friction between objects and everything else is scaled by up to 1 plus or minus this.
        mass: the objects' masses are scaled by up to 1 plus or minus this.
        latency_s: frames are taken up to this long before a motion has ended.
    """

    __pydantic_config__ = STRICT

    camera_position_m: float = 0.0
    camera_target_m: float = 0.0
    light: bool = False
    textures: bool = False
    friction: float = 0.0
    mass: float = 0.0
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("friction", "mass"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"randomisation {name} is {getattr(self, name)}, expected 0 up to, not including, 1")
        for name in ("camera_position_m", "camera_target_m", "latency_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"randomisation {name} is {getattr(self, name)}, expected 0 or more")


@dataclass(frozen=True)
class SimConfig:
    """A simulated cell.

    Attributes:
        objects: ``train`` (900 objects), ``unseen`` (the 100 whose number ends in 0) or ``other`` (a duck, a mug, a
            domino and the like); only ``train`` is ever collected with.
        object_count: fewest and most objects when the bin is filled.
        object_scale: size of the objects against the files' own.
        fresh_scene_every_episode: fill the bin anew for each episode, as evaluations want it; else objects stay put.
        stuck_after: failed episodes in a row after which the bin is filled anew.
        keep_scene: never fill the bin anew but when an episode's seed asks for it, as emptying a bin wants it.
        camera: the over-the-shoulder camera.
        randomisation: how much the world changes with each refill.
        cell: limits, heights and rewards.
    """

    __pydantic_config__ = STRICT

    objects: ObjectSet = "train"
    object_count: tuple[int, int] = (1, 10)
    object_scale: float = 1.0
    fresh_scene_every_episode: bool = False
    stuck_after: int = 4
    keep_scene: bool = False
    camera: CameraConfig = field(default_factory=CameraConfig)
    randomisation: Randomisation = field(default_factory=Randomisation)
    cell: CellConfig = field(default_factory=CellConfig)

    def __post_init__(self) -> None:
        fewest, most = self.object_count
        if not 1 <= fewest <= most <= 10:
            raise ConfigError(f"object_count is {self.object_count}, expected two rising numbers from 1 to 10")
        if not 0.2 <= self.object_scale <= 1.5:
            raise ConfigError(f"object_scale is {self.object_scale}, expected 0.2 to 1.5")
        if self.stuck_after < 1:
            raise ConfigError(f"stuck_after is {self.stuck_after}, expected at least 1 episode")
        if self.keep_scene and self.fresh_scene_every_episode:
            raise ConfigError("found keep_scene and fresh_scene_every_episode, expected one of them at most")

    def require_training_objects(self) -> None:
        """Raises ConfigError unless grasps may be collected with these objects."""
        if self.objects != "train":
            raise ConfigError(
                f"sim.objects is {self.objects!r}, expected 'train': what a policy is evaluated on must never be "
                "collected with; leave --sim.objects away, and give qtopt eval --objects instead"
            )
