"""A simulated arm, hand, bin and objects that live in real time: what stands behind a vendor's protocol.

For learning, time passes only while somebody waits. A plant has a thread of its own that lets time pass with the
clock on the wall, whoever watches, and every motion is made by motors of limited force. Where something stands in the
way the motors press harder the further the hand lags behind, as a stiff arm does, and give up at the end.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from qtopt.errors import ConfigError, RobotError
from qtopt.types import UInt8Array
from robot_bridge.robot import ToolPose
from sim.arm import joint_angles
from sim.bin import SimBin
from sim.bullet import bullet
from sim.camera import SimCamera
from sim.config import SimConfig
from sim.hand import MAX_WIDTH_M, Hand, Samples
from sim.mirror import Scene, Seen
from sim.plant_motion import Fingers, Motors, Path
from sim.robot import SimRobot
from sim.world import TIME_STEP_S, World

HOME = ToolPose(0.6, 0.0, 0.3, 0.0)
"""Where the tool is in the beginning."""
TRACE_S = 60.0
"""How far back the record of the tool's way goes."""
REFILL_HEIGHT_M = 0.12
"""A bin is filled anew only while the finger tips are at least this high."""
_DOZE_EVERY = 12
_MOST_LATE_S = 0.25
_STILL_M_S = 1e-3
_STILL_RAD_S = 5e-3
_SMOOTHING = 0.5
"""Share of the newest time step in the measured wrench: the solver's forces are rougher than any sensor."""


@dataclass(frozen=True, slots=True)
class PlantState:
    """What is true of the plant after a time step, base frame.

    Attributes:
        time_s: simulated time since the start.
        tool: the tool point.
        twist: its linear [m/s] and angular [rad/s] velocity.
        told: where the arm's joints have the tool point, which is all that a controller reports: of what bends beyond
            them, gripper and pads, they know nothing.
        told_twist: its velocity by the joints.
        wrench: force [N] and torque [N m] about the tool point, on fingers and palm.
        joints_rad: of the KUKA arm that the camera sees.
        width_m: opening between the fingers.
        gripper_moving: the fingers have not yet come to rest.
        under_way: the set point moves, or is about to: what a controller takes for the motion, whatever the tool does.
        moving: so it is, or the tool moves.
        holding: both fingers touch an object.
        touched_low_m: lowest point of what touches the fingers, of several objects the highest; None unless both touch
            something, which may be one object or two side by side.
        told_width_m: the opening that the fingers were last told to go to.
        blocked: the last motion was given up because something stood in the way.
    """

    time_s: float
    tool: ToolPose
    twist: tuple[float, float, float, float, float, float]
    told: ToolPose
    told_twist: tuple[float, float, float, float, float, float]
    wrench: tuple[float, float, float, float, float, float]
    joints_rad: tuple[float, ...]
    width_m: float
    gripper_moving: bool
    under_way: bool
    moving: bool
    holding: bool
    told_width_m: float
    touched_low_m: float | None = None
    blocked: bool = False


class Sample(NamedTuple):
    """Where the tool point was [m] when the clock on the wall (``time.monotonic``) showed so much [s]."""

    clock_s: float
    x_m: float
    y_m: float
    z_m: float


class Plant:
    """A simulated cell that runs by itself. Every method may be called from any thread; none waits for a motion.

    Args:
        config: the cell.
        seed: of the sequence of bins.
        speedup: how many simulated seconds pass in one.
    """

    def __init__(self, config: SimConfig, seed: int = 0, speedup: float = 1.0) -> None:
        if not 0.0 < speedup <= 100.0:
            raise ConfigError(f"speedup is {speedup}, expected more than 0, at most 100")
        self._speedup = speedup
        self._lock = threading.RLock()
        self._door = threading.RLock()
        """Whoever waits for the lock stands here, and the thread, which would take it again at once, lets them in."""
        self._world = World()
        self._hand = Hand(self._world, rubber=True)
        self._camera = SimCamera(self._world, self._hand, config.camera)
        robot = SimRobot(self._world, self._hand, self._camera)
        self._bin = SimBin(self._world, self._hand, self._camera, robot, config, seed)
        self._path, self._fingers, self._motors = Path(HOME), Fingers(MAX_WIDTH_M), Motors()
        self._force_n = np.zeros(3)
        self._growth: deque[Samples] = deque()
        """What is to push in the next time steps."""
        self._wrench = np.zeros(6)
        self._blocked = False
        self._ticks = self._fillings = 0
        self._trace: deque[Sample] = deque(maxlen=round(TRACE_S / TIME_STEP_S))
        self._failure: BaseException | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plant", daemon=True)
        self._fill(None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Lets time pass from now on."""
        self._thread.start()

    def close(self) -> None:
        """Ends time and frees the world; a second call does nothing."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._door, self._lock:
            self._world.close()

    def state(self) -> PlantState:
        """Returns the newest state at once. Raises RobotError if the plant broke."""
        if self._failure is not None:
            raise RobotError(f"the simulated plant broke: {self._failure!r}") from self._failure
        return self._state

    def move_to(self, target: ToolPose, speed_m_s: float, accel_m_s2: float, yaw_rate_rad_s: float = 0.8) -> None:
        """Starts a motion in a straight line with trapezoidal speed, in place of what was under way.

        Raises:
            RobotError: the target is out of reach; nothing changes.
        """
        joint_angles(target)
        with self._door, self._lock:
            self._blocked = self._motors.braked = False
            self._path.go(target, speed_m_s, accel_m_s2, yaw_rate_rad_s)
            self._told_anew()

    def servo_to(self, target: ToolPose, speed_m_s: float, accel_m_s2: float, yaw_rate_rad_s: float = 0.8) -> None:
        """Follows a stream of targets: like ``move_to``, but a motion that was blocked stays so until ``stop``."""
        joint_angles(target)
        with self._door, self._lock:
            if not self._blocked:
                self._motors.braked = False
                self._path.go(target, speed_m_s, accel_m_s2, yaw_rate_rad_s)
                self._told_anew()

    def stop(self, decel_m_s2: float) -> None:
        """Stands still as fast as ``decel_m_s2`` allows."""
        with self._door, self._lock:
            self._blocked = False
            self._path.brake(decel_m_s2)

    def grip(self, width_m: float, speed_m_s: float, force_n: float) -> None:
        """Moves the fingers to an opening [m] at an opening speed, pressing with ``force_n`` at most."""
        with self._door, self._lock:
            self._fingers.go(width_m, speed_m_s, force_n, self._ticks)
            self._told_anew()

    def slip(self) -> None:
        """Has the fingers let go of what they hold for 0.3 s, whatever they were told."""
        with self._door, self._lock:
            self._fingers.slip()

    def image(self) -> UInt8Array:
        """Returns what the camera sees now: RGB, uint8 (H, W, 3)."""
        with self._door, self._lock:
            self._check_open()
            return self._camera.capture()

    def refill(self, seed: int | None) -> None:
        """Fills the bin anew; ``seed`` starts a new sequence of bins. Raises RobotError unless the hand is high up."""
        with self._door, self._lock:
            self._check_open()
            if self._state.moving or self._state.tool.z_m < REFILL_HEIGHT_M:
                raise RobotError(
                    f"the tool is at z {self._state.tool.z_m:.3f} m{' and moves' if self._state.moving else ''}; the "
                    f"bin is filled only while it stands at {REFILL_HEIGHT_M} m or higher: move it up and try again"
                )
            self._fill(seed)

    def objects(self) -> tuple[tuple[int, tuple[float, float, float]], ...]:
        """Returns number and position [m] of every object, wherever it lies."""
        with self._door, self._lock:
            self._check_open()
            world = self._world
            return tuple((number, world.position(body)) for body, number in sorted(world.objects.items()))

    def scene(self) -> Scene:
        """Returns where everything is, for ``sim.mirror`` to draw; takes a fraction of a millisecond."""
        with self._door, self._lock:
            self._check_open()
            client, objects = self._world.client, sorted(self._world.objects.items())
            places = [bullet.getBasePositionAndOrientation(body, physicsClientId=client) for body, _ in objects]
            seen = tuple(Seen(number, *place) for (_, number), place in zip(objects, places, strict=True))
            return Scene(self._state.tool, self._state.width_m, seen, self._fillings)

    def trace(self, since_s: float) -> list[Sample]:
        """Returns where the tool was after each time step since ``since_s`` (``time.monotonic``), a minute at most."""
        with self._door, self._lock:
            return [each for each in self._trace if each.clock_s > since_s]

    def push(self, force_n: Sequence[float], grows_s: float = 0.0) -> None:
        """Pushes the hand with a force (x, y, z) [N, base frame] until told otherwise, as an obstacle would.

        It grows from what pushed before, evenly, for ``grows_s``.
        """
        goal_n = np.array([float(each) for each in force_n])
        steps = max(1, round(grows_s / TIME_STEP_S))
        with self._door, self._lock:
            self._growth = deque(np.linspace(self._force_n, goal_n, steps + 1)[1:])

    def _check_open(self) -> None:
        if self._world.client < 0:
            raise RobotError("the simulated plant was closed; make a new one")

    def _fill(self, seed: int | None) -> None:
        """Fills the bin, which builds the hand anew, and puts the hand back to where it was."""
        here, fingers = self._path.row(), self._fingers.row()
        self._bin.refill(seed)
        self._fillings += 1
        self._hand.place(ToolPose(*here.tolist()), float(fingers.sum()))
        self._state = self._measure()

    def _run(self) -> None:
        step_s = TIME_STEP_S / self._speedup
        due = time.monotonic()
        try:
            while not self._closing.is_set():
                with self._door:
                    pass
                with self._lock:
                    self._tick()
                due += step_s
                wait_s = due - time.monotonic()
                if wait_s > 0:
                    self._closing.wait(wait_s)
                elif wait_s < -_MOST_LATE_S:
                    due = time.monotonic()
        except BaseException as error:  # whoever asks for the state must hear of it
            self._failure = error
            raise

    def _tick(self) -> None:
        self._path.advance(TIME_STEP_S)
        self._fingers.advance(TIME_STEP_S)
        here, moving = self._hand.motion()
        self._hand.follow(*self._motors.commands(self._path, self._fingers, here, moving))
        if self._growth:
            self._force_n = self._growth.popleft()
        self._hand.load(self._force_n)
        self._world.step(1)
        self._ticks += 1
        here, _ = self._hand.motion()
        wrench, holding, low_m = self._hand.contact(here[:3])
        pushed = np.concatenate([self._force_n, np.zeros(3)])
        self._wrench = self._wrench + _SMOOTHING * (wrench + pushed - self._wrench)
        self._fingers.observe(here[4:], self._ticks, holding=holding)
        if self._motors.overloaded(self._path, here):
            self._blocked, self._motors.braked = self._path.under_way, True
            self._path.settle(here[:4])
        if self._ticks % _DOZE_EVERY == 0 and not holding and not wrench.any():
            self._world.doze()
        self._state = self._measure(holding=holding, touched_low_m=low_m)
        tool = self._state.tool
        self._trace.append(Sample(time.monotonic(), tool.x_m, tool.y_m, tool.z_m))

    def _told_anew(self) -> None:
        """Has the state say what was just asked for; what is touched is known after a time step."""
        self._state = self._measure(holding=self._state.holding, touched_low_m=self._state.touched_low_m)

    def _measure(self, *, holding: bool = False, touched_low_m: float | None = None) -> PlantState:
        here, rates = self._hand.motion()
        tool = ToolPose(*here[:4].tolist())
        return PlantState(
            time_s=self._ticks * TIME_STEP_S,
            tool=tool,
            twist=_twist(rates[:4]),
            told=ToolPose(*self._path.row().tolist()),
            told_twist=_twist(self._path.velocity),
            wrench=_six(self._wrench),
            joints_rad=self._joints(tool),
            width_m=max(0.0, float(here[4:].sum())),
            gripper_moving=self._fingers.moving,
            under_way=self._path.under_way,
            moving=self._path.under_way or _moves(rates),
            holding=holding,
            told_width_m=self._fingers.goal_m,
            touched_low_m=touched_low_m,
            blocked=self._blocked,
        )

    def _joints(self, tool: ToolPose) -> tuple[float, ...]:
        """Returns the joint angles, or the last ones where the arm that is seen could not follow."""
        with contextlib.suppress(RobotError):
            self._last_joints = joint_angles(tool)
        return self._last_joints


def _moves(rates: Samples) -> bool:
    return bool(np.linalg.norm(rates[:3]) > _STILL_M_S or abs(rates[3]) > _STILL_RAD_S)


def _twist(rates: Samples) -> tuple[float, float, float, float, float, float]:
    x, y, z, yaw = rates.tolist()
    return x, y, z, 0.0, 0.0, yaw


def _six(values: Samples) -> tuple[float, float, float, float, float, float]:
    a, b, c, d, e, f = values.tolist()
    return a, b, c, d, e, f
