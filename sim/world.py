"""The physics world: table, bin and objects in a Bullet client of its own, and what stands where.

Objects that have come to rest are put to sleep, so a bin that nobody touches costs nothing; the boxes around their
convex parts are kept, so the hand knows where it can move without physics. Every call names its client: worlds do not
disturb each other.
"""

import numpy as np
import numpy.typing as npt

from sim.bullet import bullet
from sim.objects import Parts, object_parts, object_path

Boxes = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

TIME_STEP_S = 1.0 / 120.0
SOLVER_ITERATIONS = 30
GRAVITY = 9.81
BIN_CENTRE_M = (0.60, 0.0)
BIN_HALF_M = 0.15
WALL_HEIGHT_M = 0.05
WALL_HALF_M = 0.006
_REST_SPEED = 0.03
"""Below this [m/s, and rad/s after division by ten] an object counts as standing still."""
_CHECK_EVERY = 5


class World:
    """A Bullet client with a table and a bin."""

    def __init__(self) -> None:
        self.client: int = bullet.connect(bullet.DIRECT)
        self.objects: dict[int, int] = {}
        self.furniture: list[int] = []
        self.steps = 0
        self._parts: dict[int, Parts] = {}
        self._walls: Boxes = _wall_boxes()
        self._boxes: Boxes = self._walls
        self.rebuild()

    def rebuild(self) -> None:
        """Empties the world and builds table and bin anew: what follows depends on nothing that was before."""
        client = self.client
        bullet.resetSimulation(physicsClientId=client)
        bullet.setGravity(0.0, 0.0, -GRAVITY, physicsClientId=client)
        bullet.setPhysicsEngineParameter(
            fixedTimeStep=TIME_STEP_S,
            numSolverIterations=SOLVER_ITERATIONS,
            deterministicOverlappingPairs=1,
            physicsClientId=client,
        )
        self.objects, self._parts, self._boxes = {}, {}, self._walls
        x, y = BIN_CENTRE_M
        outer = BIN_HALF_M + 2 * WALL_HALF_M
        self.furniture = [
            self._fixed_box((0.9, 0.9, 0.01), (x, y, -0.022), (0.55, 0.50, 0.45, 1.0)),
            self._fixed_box((outer, outer, 0.005), (x, y, -0.005), (0.80, 0.80, 0.78, 1.0), thick_m=0.05),
        ]
        for low, high in zip(*self._walls, strict=True):
            half, centre = (high - low) / 2, (high + low) / 2
            self.furniture.append(self._fixed_box(tuple(half), tuple(centre), (0.65, 0.66, 0.68, 1.0)))

    def _fixed_box(
        self,
        half_m: tuple[float, ...],
        centre_m: tuple[float, ...],
        colour: tuple[float, float, float, float],
        thick_m: float = 0.0,
    ) -> int:
        """Adds a box that never moves; ``thick_m`` thickens its collision shape downwards, against tunnelling."""
        client = self.client
        collision = bullet.createCollisionShape(
            bullet.GEOM_BOX,
            halfExtents=[half_m[0], half_m[1], half_m[2] + thick_m],
            collisionFramePosition=[0.0, 0.0, -thick_m],
            physicsClientId=client,
        )
        visual = bullet.createVisualShape(
            bullet.GEOM_BOX, halfExtents=list(half_m), rgbaColor=colour, physicsClientId=client
        )
        body: int = bullet.createMultiBody(0.0, collision, visual, list(centre_m), physicsClientId=client)
        bullet.changeDynamics(body, -1, lateralFriction=0.8, physicsClientId=client)
        return body

    def add_object(
        self,
        number: int,
        position_m: tuple[float, float, float],
        orientation: tuple[float, ...],
        *,
        scale: float,
        mass_scale: float = 1.0,
        friction_scale: float = 1.0,
    ) -> int:
        """Loads an object at a pose (quaternion x, y, z, w); returns its body."""
        client = self.client
        body: int = bullet.loadURDF(
            str(object_path(number)), position_m, orientation, globalScaling=scale, physicsClientId=client
        )
        bullet.changeDynamics(
            body,
            -1,
            mass=0.1 * mass_scale,
            lateralFriction=1.0 * friction_scale,
            spinningFriction=0.002,
            rollingFriction=0.0001,
            linearDamping=0.04,
            angularDamping=0.1,
            contactProcessingThreshold=0.0,
            physicsClientId=client,
        )
        self.objects[body] = number
        self._parts[body] = object_parts(number, scale)
        return body

    def remove_object(self, body: int) -> None:
        """Takes an object out of the world."""
        bullet.removeBody(body, physicsClientId=self.client)
        del self.objects[body], self._parts[body]

    def step(self, count: int) -> None:
        """Lets ``count`` time steps pass."""
        self.steps += count
        client, step = self.client, bullet.stepSimulation
        for _ in range(count):
            step(physicsClientId=client)

    def position(self, body: int) -> tuple[float, float, float]:
        """Returns where an object's origin is [m]."""
        position, _ = bullet.getBasePositionAndOrientation(body, physicsClientId=self.client)
        return position[0], position[1], position[2]

    def settle(self, most_steps: int, *, besides: int | None = None) -> None:
        """Lets time pass until every object rests, at most ``most_steps``; then those that rest sleep.

        ``besides`` names an object that is held and neither has to rest nor may sleep.
        """
        for _ in range(0, most_steps, _CHECK_EVERY):
            if not any(self._moves(body) for body in self.objects if body != besides):
                break
            self.step(_CHECK_EVERY)
        for body in self.objects:
            if body != besides:
                bullet.changeDynamics(
                    body, -1, activationState=bullet.ACTIVATION_STATE_SLEEP, physicsClientId=self.client
                )
        self.refresh()

    def _moves(self, body: int) -> bool:
        linear, angular = bullet.getBaseVelocity(body, physicsClientId=self.client)
        speed, turn = float(max(map(abs, linear))), float(max(map(abs, angular)))
        return speed > _REST_SPEED or turn > 10 * _REST_SPEED

    def refresh(self) -> None:
        """Measures anew where the objects stand."""
        lows, highs = [self._walls[0]], [self._walls[1]]
        for body, parts in self._parts.items():
            position, quaternion = bullet.getBasePositionAndOrientation(body, physicsClientId=self.client)
            rotation = np.array(bullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
            low, high = parts.boxes(np.array(position), rotation)
            lows.append(low)
            highs.append(high)
        self._boxes = np.concatenate(lows), np.concatenate(highs)

    def obstacles(self) -> Boxes:
        """Returns low and high corners (N, 3) [m] of boxes around the walls and the objects' parts as last measured."""
        return self._boxes

    def close(self) -> None:
        """Frees the client; a second call does nothing."""
        if self.client >= 0:
            bullet.disconnect(physicsClientId=self.client)
            self.client = -1


def _wall_boxes() -> Boxes:
    x, y = BIN_CENTRE_M
    thick, inner = 2 * WALL_HALF_M, BIN_HALF_M
    outer = inner + thick
    low = [
        (x - outer, y - outer, 0.0),
        (x + inner, y - outer, 0.0),
        (x - inner, y - outer, 0.0),
        (x - inner, y + inner, 0.0),
    ]
    high = [
        (x - inner, y + outer, WALL_HEIGHT_M),
        (x + outer, y + outer, WALL_HEIGHT_M),
        (x + inner, y - inner, WALL_HEIGHT_M),
        (x + inner, y + outer, WALL_HEIGHT_M),
    ]
    return np.array(low), np.array(high)
