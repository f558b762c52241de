"""A UFACTORY controller's mind: its states, modes, errors and limits, and the motions it makes of commands.

Told of the passing of time by ``tick``, a hundred times a second; everything happens in one thread.
"""

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from qtopt.errors import RobotError
from robot_bridge.robot import ToolPose
from sim.arm import HAND_LENGTH_M, WRIST_TO_FLANGE_M, link_poses
from sim.plant import Plant, PlantState
from sim.servers.xarm_frames import Snapshot

MOVING, READY, PAUSED, STOPPED, RESET, SLOWLY_STOPPED = 1, 2, 3, 4, 5, 6
POSITION, SERVO, VELOCITY = 0, 1, 5
E_STOP, KINEMATIC, COLLISION, BOUNDARY = 1, 21, 31, 35
DONE, DISCARDED = 0, 2
STOP_DECEL_M_S2: Final = 5.0
SLOW_STOP_DECEL_M_S2: Final = 1.0
_ACCEL_M_S2: Final = 2.0
_COLLISION_N: Final = (math.inf, 120.0, 90.0, 60.0, 40.0, 25.0)
"""What the simulated arm feels as a collision, by sensitivity; a scale of its own."""
_MOVES_M_S: Final = 0.005
_TILT_RAD: Final = 0.05
_LOOK_AHEAD_S: Final = 0.3
_TORQUE_NOISE_NM: Final = 0.02
_QUEUE: Final = 512
WRIST_TO_LINK_M: Final = 0.081
"""From the wrist down to the origin of the last link's frame."""


@dataclass
class Motion:
    """A command that waits for its turn, or is under way; ``done`` is told how it ended."""

    target: ToolPose | None
    speed_m_s: float
    accel_m_s2: float
    done: Callable[[int], None] = field(default=lambda code: None)


class Controller:
    """The state of a controller, with a plant behind it."""

    def __init__(self, plant: Plant, seed: int) -> None:
        self._plant = plant
        self._rng = random.Random(seed)
        self.state, self.mode = READY, POSITION
        self.error = self.warning = 0
        self.enabled = True
        self.e_stop_pressed = self.unlock_refused = self.unlock_lies = False
        self.sensitivity = 3
        self.tcp_offset = [0.0, 0.0, 172.0, 0.0, 0.0, 0.0]
        self.load = [0.82, 0.0, 0.0, 48.0]
        self.reduced = self.fence = self.rebound = False
        self.boundary_mm = [2000, -2000, 2000, -2000, 2000, -2000]
        self.reduced_speed_mm_s, self.reduced_joint_speed = 1000.0, math.pi
        self.joint_limits = [-2 * math.pi, 2 * math.pi] * 7
        self._queue: deque[Motion] = deque()
        self._current: Motion | None = None
        self._velocity = np.zeros(6)
        self._velocity_ends_s = 0.0
        self._ticks = 0

    @property
    def status(self) -> int:
        """The status byte of replies."""
        return 0x40 * bool(self.error) | 0x20 * bool(self.warning) | 0x10 * (self.state >= STOPPED or not self.enabled)

    @property
    def can_move(self) -> bool:
        """Whether a motion would be taken."""
        return self.enabled and not self.error and self.state < STOPPED

    @property
    def waiting(self) -> int:
        """Commands not done yet."""
        return len(self._queue) + (self._current is not None)

    def tick(self) -> None:
        """Lets a hundredth of a second pass."""
        self._ticks += 1
        now = self._plant.state()
        self._guard(now)
        if self.state in (MOVING, READY):
            self._follow_velocity(now)
            self._next_motion(now)
        if self.state in (MOVING, READY):
            busy = self.waiting or self._velocity.any() or now.under_way
            self.state = MOVING if busy else READY

    def enable(self, *, on: bool) -> None:
        """Switches motors on or off; a stop in either case."""
        self._halt(STOP_DECEL_M_S2)
        self.enabled = on
        self.state = STOPPED if self.error else RESET

    def set_state(self, wanted: int) -> bool:
        """Goes to a state; returns whether there is such a one."""
        if wanted == 0:
            self._go()
        elif wanted == PAUSED and self.can_move:
            self._plant.stop(SLOW_STOP_DECEL_M_S2)
            self.state = PAUSED
        elif wanted in (STOPPED, SLOWLY_STOPPED):
            self._halt(STOP_DECEL_M_S2 if wanted == STOPPED else SLOW_STOP_DECEL_M_S2)
            self.state = STOPPED
        return wanted in (0, PAUSED, STOPPED, SLOWLY_STOPPED)

    def set_mode(self, mode: int) -> None:
        """Changes the mode; a stop, and state 0 must be asked for again."""
        self._halt(STOP_DECEL_M_S2)
        self.mode = mode
        self.state = STOPPED if self.error else RESET

    def clear_error(self) -> None:
        """Clears the error unless its cause is still there; a stop."""
        self._halt(STOP_DECEL_M_S2)
        if not self.unlock_refused:
            self.error = E_STOP if self.e_stop_pressed else 0
        self.state = STOPPED

    def press_e_stop(self, *, pressed: bool) -> None:
        """Presses or releases the button; releasing clears nothing."""
        self.e_stop_pressed = pressed
        if pressed:
            self.enabled = False
            self.fault(E_STOP)

    def person_clears(self) -> None:
        """Does what a person does in the vendor's program after a stop: clears, switches on. Nothing moves by that."""
        self.e_stop_pressed = self.unlock_refused = self.unlock_lies = False
        self.clear_error()
        self.enable(on=True)
        self.set_mode(POSITION)
        self.set_state(0)

    def fault(self, error: int) -> None:
        """Stops with an error."""
        self._halt(STOP_DECEL_M_S2)
        self.error, self.state = error, STOPPED

    def move(self, pose: tuple[float, ...], speed_mm_s: float, accel_mm_s2: float, done: Callable[[int], None]) -> bool:
        """Queues a straight motion to x, y, z [mm], roll, pitch, yaw [rad]; returns whether it was taken."""
        tool = self._tool_of(pose)
        if not self.can_move or self.mode != POSITION or tool is None or self.waiting >= _QUEUE:
            return False
        self._queue.append(Motion(tool, self._limited(speed_mm_s) / 1000, accel_mm_s2 / 1000, done))
        return True

    def move_joints(self, joints: tuple[float, ...], speed_rad_s: float, done: Callable[[int], None]) -> bool:
        """Queues a motion to joint angles that hold the tool straight down; returns whether it was taken."""
        speed = min(speed_rad_s, self.reduced_joint_speed) if self.reduced else speed_rad_s
        pose = forward_kinematics(joints)
        return self.move(pose, 500.0 * speed, 1000 * _ACCEL_M_S2, done)

    def after_all(self, done: Callable[[int], None]) -> None:
        """Tells when everything queued before has ended."""
        self._queue.append(Motion(None, 0.0, 0.0, done))

    def servo(self, pose: tuple[float, ...]) -> bool:
        """Follows a stream of targets; returns whether this one was taken."""
        tool = self._tool_of(pose)
        if not self.can_move or self.mode != SERVO or tool is None or not self._within_fence(tool):
            return False
        self._plant.servo_to(tool, self._limited(500.0) / 1000, _ACCEL_M_S2)
        return True

    def move_at(self, velocity: tuple[float, ...], duration_s: float) -> bool:
        """Moves at [mm/s, rad/s] for a duration [s], for ever if that is 0; returns whether it was taken."""
        if not self.can_move or self.mode != VELOCITY or not all(map(math.isfinite, velocity)):
            return False
        wanted = np.array(velocity)
        speed = float(np.linalg.norm(wanted[:3]))
        wanted[:3] *= self._limited(speed) / speed if speed > 0 else 1.0
        wanted[:3] /= 1000
        self._velocity = wanted
        self._velocity_ends_s = self._plant.state().time_s + duration_s if duration_s > 0 else math.inf
        if not wanted.any():
            self._plant.stop(_ACCEL_M_S2)
        return True

    def snapshot(self) -> Snapshot:
        """Returns what a report tells now."""
        now = self._plant.state()
        speed_mm_s = 1000 * float(np.linalg.norm(now.told_twist[:3]))
        noise = [self._rng.gauss(0.0, _TORQUE_NOISE_NM) for _ in range(7)]
        return Snapshot(
            self.state, self.mode, self.waiting, now.joints_rad, wire_pose(now.told), noise, self.enabled, self.error,
            self.warning, self.tcp_offset, self.load, self.sensitivity, speed_mm_s,
            self.reduced, self.boundary_mm, self.reduced_speed_mm_s, self.reduced_joint_speed, self.joint_limits,
            self.fence, self.rebound, self._ticks, now.time_s,
        )  # fmt: skip

    def _go(self) -> None:
        if self.error or not self.enabled or self.unlock_lies:
            return
        if self.state == PAUSED and self._current is not None:
            self._start(self._current)
        self.state = READY

    def _halt(self, decel_m_s2: float) -> None:
        self._plant.stop(decel_m_s2)
        self._velocity[:] = 0.0
        dropped = [self._current] if self._current else []
        self._current = None
        dropped += self._queue
        self._queue.clear()
        for motion in dropped:
            motion.done(DISCARDED)

    def _guard(self, now: PlantState) -> None:
        if self.error or not self.enabled:
            return
        if now.blocked or (self.state == MOVING and _collides(now, _COLLISION_N[self.sensitivity])):
            self.fault(COLLISION)
        elif now.moving and not self._within_fence(now.told):
            self.fault(BOUNDARY)

    def _follow_velocity(self, now: PlantState) -> None:
        if not self._velocity.any():
            return
        if now.time_s >= self._velocity_ends_s:
            self._velocity[:] = 0.0
            self._plant.stop(_ACCEL_M_S2)
            return
        x, y, z, yaw = (self._velocity[[0, 1, 2, 5]] * _LOOK_AHEAD_S).tolist()
        tool = now.told
        target = ToolPose(tool.x_m + x, tool.y_m + y, tool.z_m + z, tool.yaw_rad + yaw)
        speed, yaw_rate = float(np.linalg.norm(self._velocity[:3])), abs(float(self._velocity[5]))
        try:
            self._plant.servo_to(target, max(speed, 1e-4), _ACCEL_M_S2, max(yaw_rate, 1e-3))
        except RobotError:
            self.fault(KINEMATIC)

    def _next_motion(self, now: PlantState) -> None:
        if self._current is not None and not now.under_way:
            self._current.done(DONE)
            self._current = None
        while self._current is None and self._queue:
            motion = self._queue.popleft()
            if motion.target is None:
                motion.done(DONE)
            else:
                self._current = motion
                self._start(motion)

    def _start(self, motion: Motion) -> None:
        assert motion.target is not None
        if not self._within_fence(motion.target):
            self.fault(BOUNDARY)
            return
        try:
            self._plant.move_to(motion.target, max(motion.speed_m_s, 1e-4), max(motion.accel_m_s2, 1e-3))
        except RobotError:
            self.fault(KINEMATIC)

    def _within_fence(self, tool: ToolPose) -> bool:
        high, low = self.boundary_mm[0::2], self.boundary_mm[1::2]
        here = (1000 * tool.x_m, 1000 * tool.y_m, 1000 * tool.z_m)
        return not self.fence or all(a <= p <= b for a, p, b in zip(low, here, high, strict=True))

    def _limited(self, speed_mm_s: float) -> float:
        return min(speed_mm_s, self.reduced_speed_mm_s) if self.reduced else speed_mm_s

    def _tool_of(self, pose: tuple[float, ...]) -> ToolPose | None:
        """Returns the tool pose, None unless it points straight down, which is all that the plant's hand can do."""
        x, y, z, roll, pitch, yaw = pose
        if not all(map(math.isfinite, pose)) or abs(pitch) > _TILT_RAD:
            return None
        if abs(math.remainder(roll - math.pi, 2 * math.pi)) > _TILT_RAD:
            return None
        here = self._plant.state().told.yaw_rad
        return ToolPose(x / 1000, y / 1000, z / 1000, here + math.remainder(yaw - here, 2 * math.pi))


def _collides(now: PlantState, most_n: float) -> bool:
    """Returns whether the tool moves under a force that is too great, unless it moves to where the force wants it."""
    force, velocity = np.array(now.wrench[:3]), np.array(now.twist[:3])
    size_n, speed_m_s = float(np.linalg.norm(force)), float(np.linalg.norm(velocity))
    return size_n > most_n and speed_m_s > _MOVES_M_S and float(force @ velocity) < 0.5 * size_n * speed_m_s


def wire_pose(tool: ToolPose) -> tuple[float, ...]:
    """Returns x, y, z [mm], roll, pitch, yaw [rad] of a tool that points straight down."""
    yaw = math.remainder(tool.yaw_rad, 2 * math.pi)
    return 1000 * tool.x_m, 1000 * tool.y_m, 1000 * tool.z_m, math.pi, 0.0, yaw


def forward_kinematics(joints: tuple[float, ...]) -> tuple[float, ...]:
    """Returns x, y, z [mm], roll, pitch, yaw [rad] of the tool point at seven joint angles."""
    flange = link_poses(joints)[-1]
    tip = flange[:3, 3] + flange[:3, 2] * (HAND_LENGTH_M + WRIST_TO_FLANGE_M - WRIST_TO_LINK_M)
    x, y, z = (
        -flange[:3, 0],
        -flange[:3, 1],
        flange[:3, 2],
    )  # the hand is mounted half a turn from the last link's frame
    pitch = -math.asin(max(-1.0, min(1.0, float(x[2]))))
    return (*(1000 * tip).tolist(), math.atan2(y[2], z[2]), pitch, math.atan2(x[1], x[0]))
