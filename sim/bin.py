"""The bin: filled from the object set, kept between episodes, filled anew when empty or stuck."""

from collections.abc import Mapping

import numpy as np

from qtopt.types import JsonValue, Outcome
from sim.bullet import bullet
from sim.camera import SimCamera, View
from sim.config import SimConfig
from sim.furniture import BIN_CENTRE_M, BIN_HALF_M, add_visuals, random_colour
from sim.hand import Hand
from sim.objects import object_numbers
from sim.robot import SimRobot
from sim.world import World

_SPREAD_M = 0.075
_FALL_STEPS = 30
_SETTLE_STEPS = 240
_REACH_M = 0.02


class SimBin:
    """Looks after the simulated bin; a ``robot_bridge.robot.BinKeeper``.

    A refill empties the whole world first, so that it depends on the generator alone.
    """

    def __init__(
        self, world: World, hand: Hand, camera: SimCamera, robot: SimRobot, config: SimConfig, seed: int
    ) -> None:
        self._world, self._hand, self._camera, self._robot, self._config = world, hand, camera, robot, config
        self._numbers = np.array(object_numbers(config.objects))
        self._rng = np.random.default_rng([seed, 1])
        self._failures = 0
        self._facts: dict[str, JsonValue] = {}

    def prepare(self, seed: int | None) -> Mapping[str, JsonValue]:
        """Refills where needed; returns the objects in the bin and what was drawn for it."""
        self._clear_strays()
        if seed is not None or self._config.fresh_scene_every_episode or self._needs_refill():
            self.refill(seed)
        return {**self._facts, "objects": [*sorted(self._world.objects.values())]}

    def refill(self, seed: int | None) -> None:
        """Empties the world and fills the bin anew; ``seed`` starts a new, repeatable sequence of bins."""
        if seed is not None:
            self._rng = np.random.default_rng([seed, 1])
        self._refill()

    def finish(self, outcome: Outcome) -> Mapping[str, JsonValue]:
        """Takes a lifted object away and counts failures in a row; there is nothing to prove."""
        if outcome is not Outcome.SUCCESS:
            self._failures += 1
            return {}
        self._failures = 0
        held = self._hand.held()
        if held is not None:
            self._world.remove_object(held)
        return {}

    def _clear_strays(self) -> None:
        for body in [body for body in self._world.objects if not self._within(body, BIN_HALF_M)]:
            self._world.remove_object(body)

    def _needs_refill(self) -> bool:
        if self._config.keep_scene and self._facts:
            return False
        if self._failures >= self._config.stuck_after:
            return True
        limits = self._config.cell.limits
        reach = max(limits.high_m[0] - BIN_CENTRE_M[0], limits.high_m[1] - BIN_CENTRE_M[1]) + _REACH_M
        return not any(self._within(body, reach) for body in self._world.objects)

    def _within(self, body: int, half_m: float) -> bool:
        x, y, z = self._world.position(body)
        return max(abs(x - BIN_CENTRE_M[0]), abs(y - BIN_CENTRE_M[1])) <= half_m and z > -0.01

    def _refill(self) -> None:
        config, rng = self._config, self._rng
        amount = config.randomisation
        self._failures = 0
        self._world.rebuild()
        self._hand.rebuild()
        view = draw_view(config, rng)
        self._camera.rebuild(view)
        self._robot.latency_s = float(rng.uniform(0.0, amount.latency_s)) if amount.latency_s else 0.0
        friction = float(rng.uniform(1 - amount.friction, 1 + amount.friction)) if amount.friction else 1.0
        mass = float(rng.uniform(1 - amount.mass, 1 + amount.mass)) if amount.mass else 1.0
        count = int(rng.integers(config.object_count[0], config.object_count[1] + 1))
        for number in rng.choice(self._numbers, count, replace=False):
            self._drop(int(number), mass, friction)
        self._world.settle(_SETTLE_STEPS)
        self._clear_strays()
        add_visuals(self._world.client, rng if amount.textures else None)
        if amount.textures:
            self._paint_objects()
        self._facts = {
            "object_set": config.objects,
            "camera_position_m": list(view.position_m),
            "camera_target_m": list(view.target_m),
            "light_direction": list(view.light_direction),
            "light_ambient": view.ambient,
            "shadow": view.shadow,
            "random_textures": amount.textures,
            "friction_scale": friction,
            "mass_scale": mass,
            "latency_s": self._robot.latency_s,
        }

    def _drop(self, number: int, mass: float, friction: float) -> None:
        """Lets an object fall from just above what lies there, in a random orientation."""
        rng = self._rng
        x, y = np.array(BIN_CENTRE_M) + rng.uniform(-_SPREAD_M, _SPREAD_M, 2)
        quaternion = rng.normal(size=4)
        quaternion /= np.linalg.norm(quaternion)
        top = max((self._world.position(body)[2] for body in self._world.objects), default=0.0)
        self._world.add_object(
            number,
            (float(x), float(y), top + 0.10),
            tuple(float(value) for value in quaternion),
            scale=self._config.object_scale,
            mass_scale=mass,
            friction_scale=friction,
        )
        self._world.step(_FALL_STEPS)

    def _paint_objects(self) -> None:
        for body in self._world.objects:
            bullet.changeVisualShape(body, -1, rgbaColor=random_colour(self._rng), physicsClientId=self._world.client)


def draw_view(config: SimConfig, rng: np.random.Generator) -> View:
    """Draws where the camera stands and how the light falls."""
    camera, amount = config.camera, config.randomisation
    shift = rng.uniform(-1.0, 1.0, 6)
    x, y, z = (np.array(camera.position_m) + amount.camera_position_m * shift[:3]).tolist()
    u, v, w = (np.array(camera.target_m) + amount.camera_target_m * shift[3:]).tolist()
    if not amount.light:
        return View((x, y, z), (u, v, w))
    dx, dy = rng.uniform(-1.0, 1.0, 2).tolist()
    ambient = float(rng.uniform(0.35, 0.7))
    return View((x, y, z), (u, v, w), (dx, dy, 1.0), ambient, 1.0 - ambient, bool(rng.random() < 0.5))
