"""The physics world: table, bin and objects in a Bullet client of its own, and what stands where.

Objects that have come to rest sleep until something moving comes near, so a bin that nobody touches costs nothing; the
boxes around their convex parts are kept, so the hand knows where it can move without physics. Every call names its
client: worlds do not disturb each other.
"""

from collections.abc import Callable

import numpy as np

from sim.bullet import bullet
from sim.furniture import Boxes, add_collisions, wall_boxes
from sim.objects import Parts, object_parts, object_path, object_scale

TIME_STEP_S = 1.0 / 120.0
SOLVER_ITERATIONS = 30
GRAVITY = 9.81
OBJECT_MASS_KG = 0.1
_REST_SPEED = 0.03
"""Below this [m/s, and rad/s after division by ten] an object counts as standing still."""
_CHECK_EVERY = 5
_WAKE_EVERY = 4
_HAND_GAP_M = 0.014
"""More than the hand moves in ``_WAKE_EVERY`` steps."""
_TOUCH_M = 0.003
"""Objects nearer than this to one that wakes, wake too: they may lean on it."""
_OBJECT_RADIUS_M = 0.06


class World:
    """A Bullet client with a table and a bin."""

    def __init__(self) -> None:
        self.client: int = bullet.connect(bullet.DIRECT)
        self.objects: dict[int, int] = {}
        self.steps = 0
        self.awake: set[int] = set()
        self.mover = -1
        self.mover_links: tuple[int, ...] = ()
        self.watcher: Callable[[float], None] | None = None
        """Told of every stretch of time that has passed [s], motions made without physics included: who films."""
        self._mass_kg: dict[int, float] = {}
        self._parts: dict[int, Parts] = {}
        self._walls = wall_boxes()
        self._boxes: Boxes = self._walls
        self._asleep_boxes: Boxes = self._walls
        self._asleep_owner = np.zeros(0, np.int64)
        self.rebuild()

    def rebuild(self) -> None:
        """Empties the world and builds the bin anew, unseen: what follows depends on nothing that was before."""
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
        add_collisions(client)

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
            str(object_path(number)),
            position_m,
            orientation,
            globalScaling=scale * object_scale(number),
            physicsClientId=client,
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
        self.wake_near(self._part_boxes(body))
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
                self._wake_ahead()
            steps = min(_WAKE_EVERY, count - done)
            for _ in range(steps):
                step(physicsClientId=client)
            if self.watcher is not None:
                self.watcher(steps * TIME_STEP_S)

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
            if quiet == 2 or not self.awake - {besides}:
                break
            self.step(_CHECK_EVERY)
            quiet = 0 if any(self._moves(body) for body in self.awake if body != besides) else quiet + 1
        for body in sorted(self.awake):
            if body != besides and not self._moves(body):
                self._sleep(body)
        self.refresh()

    def doze(self) -> None:
        """Lets what stands still sleep, without passing time; only while the hand touches nothing."""
        resting = [body for body in sorted(self.awake) if not self._moves(body)]
        for body in resting:
            self._sleep(body)
        if resting:
            self.refresh()

    def wake_near(self, moving: Boxes, gap_m: float = _TOUCH_M) -> None:
        """Wakes every sleeping object with a part nearer than ``gap_m`` to a box, what touches those, and so on."""
        while self._asleep_owner.size:
            low, high = self._asleep_boxes
            apart = (moving[0][:, None] > high + gap_m) | (moving[1][:, None] < low - gap_m)
            near = ~apart.any(2).all(0)
            woken = sorted(set(self._asleep_owner[near].tolist()))
            if not woken:
                return
            for body in woken:
                self._wake(body)
            gone = np.isin(self._asleep_owner, woken)
            moving, gap_m = (low[gone], high[gone]), _TOUCH_M
            self._asleep_owner, self._asleep_boxes = self._asleep_owner[~gone], (low[~gone], high[~gone])

    def refresh(self) -> None:
        """Measures anew where the objects stand."""
        lows, highs, owners = [self._walls[0]], [self._walls[1]], [np.full(len(self._walls[0]), -1)]
        for body in self._parts:
            low, high = self._part_boxes(body)
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

    def _part_boxes(self, body: int) -> Boxes:
        position, quaternion = bullet.getBasePositionAndOrientation(body, physicsClientId=self.client)
        rotation = np.array(bullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
        return self._parts[body].boxes(np.array(position), rotation)

    def _wake_ahead(self) -> None:
        """Wakes what the hand or a moving object may touch within the next ``_WAKE_EVERY`` steps."""
        client = self.client
        if self.mover_links:
            links = np.array([bullet.getAABB(self.mover, link, physicsClientId=client) for link in self.mover_links])
            self.wake_near((links[:, 0], links[:, 1]), _HAND_GAP_M)
        for body in sorted(self.awake):
            linear, angular = bullet.getBaseVelocity(body, physicsClientId=client)
            speed = max(map(abs, linear)) + _OBJECT_RADIUS_M * max(map(abs, angular))
            if speed > _REST_SPEED:
                self.wake_near(self._part_boxes(body), _TOUCH_M + speed * _WAKE_EVERY * TIME_STEP_S)

    def _sleep(self, body: int) -> None:
        """Bullet does not let multibodies sleep reliably; a body without mass costs nothing and stays where it is."""
        still = [0.0, 0.0, 0.0]
        bullet.resetBaseVelocity(body, still, still, physicsClientId=self.client)
        bullet.changeDynamics(body, -1, mass=0.0, physicsClientId=self.client)
        self.awake.discard(body)

    def _wake(self, body: int) -> None:
        bullet.changeDynamics(body, -1, mass=self._mass_kg[body], physicsClientId=self.client)
        self.awake.add(body)
