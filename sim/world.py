"""The physics world: table, bin and objects in a Bullet client of its own, and what stands where.

Objects that have come to rest sleep until something moving comes near, so a bin that nobody touches costs nothing; the
boxes around their convex parts are kept, so the hand knows where it can move without physics. Every call names its
client: worlds do not disturb each other.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.bullet import bullet
from sim.objects import Parts, object_parts, object_path

Box = tuple[tuple[float, float, float], tuple[float, float, float]]
Boxes = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

TIME_STEP_S = 1.0 / 120.0
SOLVER_ITERATIONS = 30
GRAVITY = 9.81
OBJECT_MASS_KG = 0.1
BIN_CENTRE_M = (0.60, 0.0)
BIN_HALF_M = 0.15
WALL_HEIGHT_M = 0.05
WALL_HALF_M = 0.006
_REST_SPEED = 0.03
"""Below this [m/s, and rad/s after division by ten] an object counts as standing still."""
_CHECK_EVERY = 5
_WAKE_EVERY = 4
_WAKE_GAP_M = 0.015
"""More than anything moves in ``_WAKE_EVERY`` steps."""


class World:
    """A Bullet client with a table and a bin."""

    def __init__(self) -> None:
        self.client: int = bullet.connect(bullet.DIRECT)
        self.objects: dict[int, int] = {}
        self.furniture: list[int] = []
        self.steps = 0
        self.awake: set[int] = set()
        self.mover = -1
        self.mover_links: tuple[int, ...] = ()
        self._mass_kg: dict[int, float] = {}
        self._parts: dict[int, Parts] = {}
        self._walls: Boxes = _wall_boxes()
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
        self.objects, self.awake, self._parts, self._mass_kg = {}, set(), {}, {}
        self.mover, self.mover_links = -1, ()
        self.refresh()
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
            mass=OBJECT_MASS_KG * mass_scale,
            lateralFriction=1.0 * friction_scale,
            spinningFriction=0.002,
            rollingFriction=0.0001,
            linearDamping=0.04,
            angularDamping=0.1,
            contactProcessingThreshold=0.0,
            physicsClientId=client,
        )
        self.objects[body] = number
        self.awake.add(body)
        self._mass_kg[body] = OBJECT_MASS_KG * mass_scale
        self._parts[body] = object_parts(number, scale)
        return body

    def remove_object(self, body: int) -> None:
        """Takes an object out of the world; what touched it wakes."""
        self.wake_near([bullet.getAABB(body, physicsClientId=self.client)])
        bullet.removeBody(body, physicsClientId=self.client)
        del self.objects[body], self._parts[body]
        self.awake.discard(body)
        self.refresh()

    def step(self, count: int) -> None:
        """Lets ``count`` time steps pass; what something moving comes near wakes before it is touched."""
        self.steps += count
        client, step = self.client, bullet.stepSimulation
        for done in range(0, count, _WAKE_EVERY):
            if self._asleep_owner.size:
                self.wake_near(self._moving_boxes())
            for _ in range(min(_WAKE_EVERY, count - done)):
                step(physicsClientId=client)

    def position(self, body: int) -> tuple[float, float, float]:
        """Returns where an object's origin is [m]."""
        position, _ = bullet.getBasePositionAndOrientation(body, physicsClientId=self.client)
        return position[0], position[1], position[2]

    def settle(self, most_steps: int, *, besides: int | None = None) -> None:
        """Lets time pass until every object rests, at most ``most_steps``; then those that rest sleep.

        ``besides`` names an object that is held and neither has to rest nor may sleep.
        """
        quiet = 0
        for _ in range(0, most_steps, _CHECK_EVERY):
            self.step(_CHECK_EVERY)
            quiet = 0 if any(self._moves(body) for body in self.awake if body != besides) else quiet + 1
            if quiet == 2:
                break
        for body in sorted(self.awake):
            if body != besides and not self._moves(body):
                self._sleep(body)
        self.refresh()

    def wake_near(self, moving: Sequence[Box]) -> None:
        """Wakes every sleeping object of which a part is near one of the boxes, and whatever is near those, and so on."""
        pending = list(moving)
        while pending and self._asleep_owner.size:
            low, high = self._asleep_boxes
            boxes = np.array(pending)
            apart = (boxes[:, None, 0] > high + _WAKE_GAP_M) | (boxes[:, None, 1] < low - _WAKE_GAP_M)
            near = ~apart.any(2).all(0)
            woken = sorted(set(self._asleep_owner[near].tolist()))
            if not woken:
                return
            for body in woken:
                self._wake(body)
            keep = ~np.isin(self._asleep_owner, woken)
            self._asleep_owner, self._asleep_boxes = self._asleep_owner[keep], (low[keep], high[keep])
            pending = [bullet.getAABB(body, physicsClientId=self.client) for body in woken]

    def refresh(self) -> None:
        """Measures anew where the objects stand."""
        lows, highs, owners = [self._walls[0]], [self._walls[1]], [np.full(len(self._walls[0]), -1)]
        for body, parts in self._parts.items():
            position, quaternion = bullet.getBasePositionAndOrientation(body, physicsClientId=self.client)
            rotation = np.array(bullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
            low, high = parts.boxes(np.array(position), rotation)
            lows.append(low)
            highs.append(high)
            owners.append(np.full(len(low), -1 if body in self.awake else body))
        self._boxes = np.concatenate(lows), np.concatenate(highs)
        owner = np.concatenate(owners)
        asleep = owner >= 0
        self._asleep_owner, self._asleep_boxes = owner[asleep], (self._boxes[0][asleep], self._boxes[1][asleep])

    def obstacles(self) -> Boxes:
        """Returns low and high corners (N, 3) [m] of boxes around the walls and the objects' parts as last measured."""
        return self._boxes

    def close(self) -> None:
        """Frees the client; a second call does nothing."""
        if self.client >= 0:
            bullet.disconnect(physicsClientId=self.client)
            self.client = -1

    def _moves(self, body: int) -> bool:
        linear, angular = bullet.getBaseVelocity(body, physicsClientId=self.client)
        speed, turn = float(max(map(abs, linear))), float(max(map(abs, angular)))
        return speed > _REST_SPEED or turn > 10 * _REST_SPEED

    def _moving_boxes(self) -> list[Box]:
        client = self.client
        links = [bullet.getAABB(self.mover, link, physicsClientId=client) for link in self.mover_links]
        return links + [bullet.getAABB(body, physicsClientId=client) for body in sorted(self.awake)]

    def _sleep(self, body: int) -> None:
        """Bullet does not let multibodies sleep reliably; a body without mass costs nothing and stays where it is."""
        still = [0.0, 0.0, 0.0]
        bullet.resetBaseVelocity(body, still, still, physicsClientId=self.client)
        bullet.changeDynamics(body, -1, mass=0.0, physicsClientId=self.client)
        self.awake.discard(body)

    def _wake(self, body: int) -> None:
        bullet.changeDynamics(body, -1, mass=self._mass_kg[body], physicsClientId=self.client)
        self.awake.add(body)


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
