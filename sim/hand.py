"""The two-finger hand: driven along x, y, z and azimuth and closed by motors of limited force.

Physics is spent where grasps are decided. While the fingers hold nothing and everything they sweep over is free, the
hand is placed along its path without stepping the world; from the last free point on, while closing on something and
while holding, every motion is simulated, and only friction holds an object up.
"""

import math

import numpy as np
import numpy.typing as npt

from robot_bridge.robot import ToolPose
from sim.bullet import bullet
from sim.world import GRAVITY, TIME_STEP_S, World

MAX_WIDTH_M = 0.10
"""The opening between the fingers."""
FINGER_HALF_M = (0.005, 0.011, 0.0375)
"""Half the thickness (along the opening), width and length of a finger."""
PALM_HALF_M = (0.065, 0.03, 0.02)
GRIP_FORCE_N = 25.0
MOVED_KG = (4.2, 3.2, 2.2)
"""What the motors along x, y and z move."""
LIFTED_KG = MOVED_KG[2]
_ARM_FORCE_N = (60.0, 60.0, 40.0, 8.0)
"""Most force along x, y, z [N] and torque about z [N m]: what stands in the way stops the hand."""
_SPEED = (0.4, 0.4, 0.4, 4.0)
_GRIP_SPEED = 0.2
_RUBBER = {"frictionAnchor": 1, "contactStiffness": 20_000.0, "contactDamping": 300.0}
_ARM = (0, 1, 2, 3)
_PALM, _LEFT, _RIGHT = 3, 4, 5
_CHECK_EVERY = 4
_MARGIN_M = 0.004
_SHOW_EVERY_S = 1 / 30

Samples = npt.NDArray[np.float64]


class Hand:
    """The hand in a world, at first wide open and high above the bin.

    Args:
        world: that it is in.
        rubber: the pads give a little and hold what they hold. Bullet's rigid contacts let it creep: of 167 objects
            held for 0.4 s, 18 fall within 10 s, and 4 of 173 with rubber. Policies train without, where no hold lasts.
    """

    def __init__(self, world: World, *, rubber: bool = False) -> None:
        self._world, self._pads = world, _RUBBER if rubber else {}
        self.body = -1
        self.closed = False
        self._shown: tuple[ToolPose, float] | None = None
        self.rebuild()

    def rebuild(self) -> None:
        """Builds the hand in a world that was emptied."""
        client = self._world.client
        box = bullet.GEOM_BOX
        finger_z = FINGER_HALF_M[2]
        palm_z = 2 * finger_z + PALM_HALF_M[2]
        shapes, visuals = [], []
        for half, offset, colour in (
            (PALM_HALF_M, (0.0, 0.0, palm_z), (0.25, 0.25, 0.28, 1.0)),
            (FINGER_HALF_M, (FINGER_HALF_M[0], 0.0, finger_z), (0.95, 0.45, 0.05, 1.0)),
            (FINGER_HALF_M, (-FINGER_HALF_M[0], 0.0, finger_z), (0.95, 0.45, 0.05, 1.0)),
        ):
            shapes.append(
                bullet.createCollisionShape(
                    box, halfExtents=half, collisionFramePosition=offset, physicsClientId=client
                )
            )
            visuals.append(
                bullet.createVisualShape(
                    box, halfExtents=half, visualFramePosition=offset, rgbaColor=colour, physicsClientId=client
                )
            )
        prismatic, revolute = bullet.JOINT_PRISMATIC, bullet.JOINT_REVOLUTE
        self.body = bullet.createMultiBody(
            0.0,
            -1,
            -1,
            [0.0, 0.0, 0.0],
            linkMasses=[1.0, 1.0, 1.0, 1.0, 0.1, 0.1],
            linkCollisionShapeIndices=[-1, -1, -1, *shapes],
            linkVisualShapeIndices=[-1, -1, -1, *visuals],
            linkPositions=[[0.0, 0.0, 0.0]] * 6,
            linkOrientations=[[0.0, 0.0, 0.0, 1.0]] * 6,
            linkInertialFramePositions=[[0.0, 0.0, 0.0]] * 6,
            linkInertialFrameOrientations=[[0.0, 0.0, 0.0, 1.0]] * 6,
            linkParentIndices=[0, 1, 2, 3, 4, 4],
            linkJointTypes=[prismatic, prismatic, prismatic, revolute, prismatic, prismatic],
            linkJointAxis=[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0], [-1, 0, 0]],
            physicsClientId=client,
        )
        for finger in (_LEFT, _RIGHT):
            bullet.changeDynamics(
                self.body,
                finger,
                lateralFriction=1.0,
                spinningFriction=0.005,
                rollingFriction=0.0005,
                physicsClientId=client,
                **self._pads,
            )
        bullet.changeDynamics(self.body, _PALM, lateralFriction=0.5, physicsClientId=client)
        gear = bullet.createConstraint(
            self.body,
            _LEFT,
            self.body,
            _RIGHT,
            bullet.JOINT_GEAR,
            [1, 0, 0],
            [0, 0, 0],
            [0, 0, 0],
            physicsClientId=client,
        )
        bullet.changeConstraint(gear, gearRatio=-1, maxForce=200, erp=0.5, physicsClientId=client)
        self._world.mover, self._world.mover_links = self.body, (_PALM, _LEFT, _RIGHT)
        self.closed = False
        self.place(ToolPose(0.6, 0.0, 0.3, 0.0), MAX_WIDTH_M)

    def pose(self) -> ToolPose:
        """Returns where the tool point is."""
        states = bullet.getJointStates(self.body, _ARM, physicsClientId=self._world.client)
        return ToolPose(states[0][0], states[1][0], states[2][0], states[3][0])

    def width(self) -> float:
        """Returns the opening between the fingers [m]."""
        left, right = bullet.getJointStates(self.body, (_LEFT, _RIGHT), physicsClientId=self._world.client)
        return max(0.0, float(left[0]) + float(right[0]))

    def seen(self) -> tuple[ToolPose, float]:
        """Returns where a spectator sees the tool point, and how far the fingers are apart [m].

        During a motion without physics that is on the way, before the hand is placed at its end.
        """
        return self._shown if self._shown is not None else (self.pose(), self.width())

    def place(self, pose: ToolPose, width_m: float) -> None:
        """Puts the hand somewhere without passing time."""
        values = (pose.x_m, pose.y_m, pose.z_m, pose.yaw_rad, width_m / 2, width_m / 2)
        for joint, value in enumerate(values):
            bullet.resetJointState(self.body, joint, value, 0.0, physicsClientId=self._world.client)

    def held(self) -> int | None:
        """Returns the object that both fingers touch, if any."""
        client = self._world.client
        left = {point[2] for point in bullet.getContactPoints(self.body, -1, _LEFT, physicsClientId=client)}
        if not left:
            return None
        right = {point[2] for point in bullet.getContactPoints(self.body, -1, _RIGHT, physicsClientId=client)}
        both = sorted(left & right & self._world.objects.keys())
        return both[0] if both else None

    def move(self, target: ToolPose, *, holding: bool) -> None:
        """Moves the tool in a straight line to ``target``, or as far as it goes."""
        start = self.pose()
        free = 0.0 if holding else self._free_share(start, target)
        if free > 0.0:
            reached, width = _between(start, target, free), self.width()
            self._show(start, reached, (width, width))
            self.place(reached, width)
            start = reached
        if free < 1.0:
            self._drive(start, target)

    def grip(self, *, close: bool) -> None:
        """Closes the fingers until they meet or hold something, or opens them fully."""
        self.closed = close
        goal = 0.0 if close else MAX_WIDTH_M
        pose, width = self.pose(), self.width()
        if abs(width - goal) < 1e-3:
            return
        widths = np.linspace(width, goal, 9)
        samples = np.tile([pose.x_m, pose.y_m, pose.z_m, pose.yaw_rad], (len(widths), 1))
        if self._clear(samples, widths).all():
            self._show(pose, pose, (width, goal))
            self.place(pose, goal)
            return
        self._hold_still(pose)
        self._drive_fingers(goal / 2)
        last = width
        for _ in range(30):
            self._world.step(_CHECK_EVERY)
            width = self.width()
            if abs(width - goal) < 1e-3 or abs(width - last) < 2e-4:
                break
            last = width

    def follow(self, rows: Samples, rates: Samples, forces: Samples) -> None:
        """Sets all motors for the next time step: a driven motion, for who plans it step by step.

        Args:
            rows: where x, y, z [m], azimuth [rad] and each finger [m] should be now, (6,).
            rates: how fast they should move [m/s, rad/s], (6,).
            forces: most force or torque of each motor [N, N m], (6,).
        """
        bullet.setJointMotorControlArray(
            self.body,
            (*_ARM, _LEFT, _RIGHT),
            bullet.POSITION_CONTROL,
            targetPositions=rows.tolist(),
            targetVelocities=rates.tolist(),
            forces=forces.tolist(),
            positionGains=(0.3,) * 6,
            velocityGains=(1.0,) * 6,
            physicsClientId=self._world.client,
        )

    def load(self, force_n: Samples) -> None:
        """Pushes the hand with ``force_n`` (3,) [N, base frame] during the next time step, and carries its weight."""
        client = self._world.client
        x, y, z = bullet.getLinkState(self.body, _PALM, physicsClientId=client)[0]
        total = (*force_n[:2].tolist(), float(force_n[2]) + LIFTED_KG * GRAVITY)
        bullet.applyExternalForce(self.body, _PALM, total, (x, y, z), bullet.WORLD_FRAME, physicsClientId=client)

    def motion(self) -> tuple[Samples, Samples]:
        """Returns where x, y, z, azimuth and both fingers are [m, rad], (6,), and how fast they move, (6,)."""
        states = bullet.getJointStates(self.body, (*_ARM, _LEFT, _RIGHT), physicsClientId=self._world.client)
        return np.array([state[0] for state in states]), np.array([state[1] for state in states])

    def contact(self, tool: Samples) -> tuple[Samples, bool, float | None]:
        """Returns what touches the hand in the last time step.

        Args:
            tool: the tool point [m], (3,), to which torques refer.

        Returns:
            Force [N] and torque [N m] on fingers and palm in the base frame, (6,); whether both fingers touch one
            object; and the lowest point [m] of what touches the fingers, of several objects the highest, None where not
            both of them are touched.
        """
        wrench = np.zeros(6)
        touched: dict[int, set[int]] = {_LEFT: set(), _RIGHT: set()}
        for point in bullet.getContactPoints(self.body, physicsClientId=self._world.client):
            if point[1] == point[2]:
                continue
            ours_first = point[1] == self.body
            other, link = (point[2], point[3]) if ours_first else (point[1], point[4])
            if point[9] > 0.0:  # where nothing presses any more, Bullet goes on telling the friction that was
                force = (
                    point[9] * np.array(point[7]) + point[10] * np.array(point[11]) + point[12] * np.array(point[13])
                )
                force = force if ours_first else -force
                wrench[:3] += force
                wrench[3:] += np.cross(np.array(point[5] if ours_first else point[6]) - tool, force)
            if link in touched and other in self._world.objects:
                touched[link].add(other)
        left, right = touched.values()
        between = left | right if left and right else set()
        lows = [bullet.getAABB(each, physicsClientId=self._world.client)[0][2] for each in between]
        return wrench, bool(left & right), max(lows, default=None)

    def _show(self, start: ToolPose, end: ToolPose, widths_m: tuple[float, float]) -> None:
        """Lets a watcher see a motion that costs no physics; nothing in the world is touched."""
        watcher = self._world.watcher
        if watcher is None:
            return
        opening_s = abs(widths_m[1] - widths_m[0]) / 2 / _GRIP_SPEED
        duration_s = max(opening_s, float((np.abs(_row(end) - _row(start)) / _SPEED).max()))
        count = math.ceil(duration_s / _SHOW_EVERY_S)
        for number in range(1, count + 1):
            share = number / count
            self._shown = _between(start, end, share), (1 - share) * widths_m[0] + share * widths_m[1]
            watcher(duration_s / count)
        self._shown = None

    def _free_share(self, start: ToolPose, target: ToolPose) -> float:
        """Returns up to which share of the path nothing is touched."""
        first, last = _row(start), _row(target)
        travel = np.abs(last - first)
        count = 2 + int(max(travel[:3].max() / 0.01, travel[3] / 0.2))
        shares = np.linspace(0.0, 1.0, count)
        samples = first + shares[:, None] * (last - first)
        clear = self._clear(samples, np.full(count, self.width()))
        if clear.all():
            return 1.0
        blocked = int(np.argmin(clear))
        return float(shares[blocked - 1]) if blocked else 0.0

    def _clear(self, samples: Samples, widths: Samples) -> npt.NDArray[np.bool_]:
        """Returns for S poses (S, 4) and openings (S,) whether fingers and palm stay off every obstacle."""
        low, high = self._world.obstacles()
        x, y, z, yaw = samples.T
        offset = widths / 2 + FINGER_HALF_M[0]
        dx, dy = offset * np.cos(yaw), offset * np.sin(yaw)
        finger = math.hypot(*FINGER_HALF_M[:2]) + _MARGIN_M
        palm = math.hypot(*PALM_HALF_M[:2]) + _MARGIN_M
        palm_z = z + 2 * FINGER_HALF_M[2]
        clear = np.ones(len(x), np.bool_)
        for px, py, pz, radius in ((x + dx, y + dy, z, finger), (x - dx, y - dy, z, finger), (x, y, palm_z, palm)):
            gap_x = np.maximum(np.maximum(low[:, 0] - px[:, None], px[:, None] - high[:, 0]), 0.0)
            gap_y = np.maximum(np.maximum(low[:, 1] - py[:, None], py[:, None] - high[:, 1]), 0.0)
            hit = (gap_x * gap_x + gap_y * gap_y < radius * radius) & (high[:, 2] > pz[:, None] - _MARGIN_M)
            clear &= ~hit.any(1)
        return clear

    def _drive(self, start: ToolPose, target: ToolPose) -> None:
        """Moves with physics, all four axes arriving together, until there or stopped by what is in the way."""
        travel = np.abs(_row(target) - _row(start))
        duration = max(float((travel / _SPEED).max()), TIME_STEP_S)
        self._arm_motors(target, tuple(travel / duration + 1e-3))
        self._drive_fingers(0.0 if self.closed else MAX_WIDTH_M / 2)
        steps = int(duration / TIME_STEP_S * 1.5) + 24
        goal, last = _row(target), _row(start)
        for done in range(0, steps, _CHECK_EVERY):
            self._world.step(_CHECK_EVERY)
            here = _row(self.pose())
            if np.abs(here - goal).max() < 2e-3:
                break
            if done > 2 * _CHECK_EVERY and np.abs(here - last).max() < 3e-4:
                break
            last = here
        self._hold_still(self.pose())

    def _hold_still(self, pose: ToolPose) -> None:
        self._arm_motors(pose, _SPEED)

    def _arm_motors(self, target: ToolPose, speed: tuple[float, ...]) -> None:
        values = (target.x_m, target.y_m, target.z_m, target.yaw_rad)
        for joint, value, limit, force in zip(_ARM, values, speed, _ARM_FORCE_N, strict=True):
            bullet.setJointMotorControl2(
                self.body,
                joint,
                bullet.POSITION_CONTROL,
                targetPosition=value,
                force=force,
                maxVelocity=limit,
                positionGain=0.3,
                physicsClientId=self._world.client,
            )

    def _drive_fingers(self, each_m: float) -> None:
        for finger in (_LEFT, _RIGHT):
            bullet.setJointMotorControl2(
                self.body,
                finger,
                bullet.POSITION_CONTROL,
                targetPosition=each_m,
                force=GRIP_FORCE_N,
                maxVelocity=_GRIP_SPEED,
                positionGain=0.3,
                physicsClientId=self._world.client,
            )


def _row(pose: ToolPose) -> Samples:
    return np.array([pose.x_m, pose.y_m, pose.z_m, pose.yaw_rad])


def _between(start: ToolPose, target: ToolPose, share: float) -> ToolPose:
    x_m, y_m, z_m, yaw_rad = (float(value) for value in _row(start) + share * (_row(target) - _row(start)))
    return ToolPose(x_m, y_m, z_m, yaw_rad)
