"""The one thread that talks on an SO-101's bus: reads all servos, moves the goals on, looks after the gripper.

The servos get goals that lie one tick ahead, so an arm whose process dies holds the last goal and stands.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.contracts import MotionOutcome
from robot_bridge.drivers.feetech import BusError, Fault, Register, Reply, ServoBus, from_word, to_word
from robot_bridge.drivers.so101_geometry import Joints
from robot_bridge.drivers.so101_motions import Motion
from robot_bridge.drivers.so101_options import STEPS_PER_RAD, Calibration, So101Options

TICK_S: Final = 0.01
MAX_STEP_S: Final = 0.03
BUS_TIMEOUT_S: Final = 0.05
LOST_AFTER_S: Final = 0.25
SETTLE_S: Final = 0.6
SETTLED_RAD: Final = 0.02
STANDING_STEPS_S: Final = 20
TRIES: Final = 3
REPORT_BYTES: Final = 15
OVERLOAD: Final = 0.8
OVERLOAD_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Reading:
    """What six servos said in one round: steps, steps a second, load (part of full strength), hottest, fault bits."""

    t_host_ns: int
    steps: tuple[int, ...]
    speeds: tuple[int, ...]
    loads: tuple[float, ...]
    temperature_c: float
    faults: tuple[Fault, ...]


class BusLoop:
    """Owns the bus after ``start``; everything public may be called from any thread.

    Args:
        options: torque and speed limits.
        calibration: of the servos.
    """

    def __init__(self, options: So101Options, calibration: Calibration) -> None:
        self._options, self._calibration = options, calibration
        self._bus: ServoBus | None = None
        self.news = threading.Condition()
        self.reading: Reading | None = None
        self.lost = ""
        self._goals: tuple[int, ...] = ()
        self._motion: Motion | None = None
        self._settle_s = 0.0
        self._braked = False
        self._end: tuple[MotionOutcome, str] | None = None
        self._overload_s = 0.0
        self._jobs: queue.Queue[tuple[Callable[[ServoBus], None], queue.Queue[RobotError | None]]] = queue.Queue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Finds the six servos and makes them hold where they are, without motion. Raises BusError."""
        bus = self._bus = ServoBus(self._options.port, self._options.baud_hz, BUS_TIMEOUT_S)
        missing = []
        for servo in self._calibration.servos:
            try:
                _patiently(partial(bus.ping, servo))
            except BusError as error:
                missing.append(str(error))
        if missing:
            raise BusError(f"on {self._options.port}: {'; '.join(missing)}")
        self._grip_tight(bus)
        self._thread = threading.Thread(target=self._run, args=(bus,), name="so101-bus", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leaves the servos holding where they are and frees the port; a second call does nothing."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2.0)
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def goal_joints(self) -> Joints:
        """Returns the joints last commanded, from which the next motion starts."""
        with self.news:
            return self._calibration.angles_rad(self._goals)

    @property
    def moving(self) -> bool:
        """Whether a motion is under way or settles."""
        return self._motion is not None

    @property
    def motion(self) -> Motion | None:
        """What is under way."""
        return self._motion

    def begin(self, motion: Motion) -> None:
        """Starts a motion; the one before it is forgotten where it stands."""
        with self.news:
            self._motion, self._end, self._settle_s, self._braked = motion, None, 0.0, False

    def brake(self, decel_m_s2: float) -> None:
        """Lets the motion end on its own path."""
        with self.news:
            if self._motion is not None:
                self._motion.brake(decel_m_s2)
                self._braked = True

    def wait(self, end_s: float) -> tuple[MotionOutcome, str] | None:
        """Returns how the motion ended; None if it has not by ``end_s`` (monotonic)."""
        with self.news:
            self.news.wait_for(lambda: self._end is not None or bool(self.lost), max(0.0, end_s - time.monotonic()))
            if self.lost and self._end is None:
                return MotionOutcome.LINK_LOST, self.lost
            return self._end

    def set_gripper(self, steps: int) -> None:
        """Gives the gripper a goal."""
        with self.news:
            self._goals = (*self._goals[:5], steps)

    def call(self, job: Callable[[ServoBus], None], timeout_s: float = 2.0) -> None:
        """Runs ``job`` in the bus's thread between two rounds; raises its RobotError, or one where it gets no turn."""
        answer: queue.Queue[RobotError | None] = queue.Queue()
        self._jobs.put((job, answer))
        try:
            error = answer.get(timeout=timeout_s)
        except queue.Empty:
            raise RobotError(f"the servo bus does not answer: {self.lost or 'its thread is busy'}") from None
        if error is not None:
            raise error

    def grip_tight(self) -> None:
        """Makes all servos hold where they are, with the torque limits of the settings; raises BusError."""
        self.call(self._grip_tight)

    def _grip_tight(self, bus: ServoBus) -> None:
        """Goal first, torque after: a servo that is switched on runs to whatever goal it still had."""
        _patiently(lambda: self._read(bus))
        if self.reading is None:
            raise BusError("no report came")
        with self.news:
            # The fingers keep their goal if they have one: it holds what is between them.
            self._goals = (*self.reading.steps[:5], *(self._goals[5:] or self.reading.steps[5:]))
        self._send(bus)
        for index, servo in enumerate(self._calibration.servos):
            part = self._options.torque_limit if index < 5 else self._options.gripper_torque_limit
            limit = round(1000 * part).to_bytes(2, "little")
            _patiently(partial(bus.write, servo, Register.TORQUE_LIMIT, limit))
            _patiently(partial(bus.write, servo, Register.TORQUE_ENABLE, b"\x01"))

    def _run(self, bus: ServoBus) -> None:
        try:
            self._turn(bus)
        except Exception as error:  # whatever ends this thread, the arm must not go on counting as ready
            self._lose(f"{type(error).__name__}: {error}")

    def _turn(self, bus: ServoBus) -> None:
        last_s = heard_s = time.monotonic()
        while not self._closing.wait(max(0.0, last_s + TICK_S - time.monotonic())):
            now_s = time.monotonic()
            dt_s, last_s = min(now_s - last_s, MAX_STEP_S), now_s
            try:
                self._work(bus)
                self._read(bus)
                self._tick(dt_s)
                self._send(bus)
                heard_s = now_s
            except BusError as error:
                if now_s - heard_s > LOST_AFTER_S:
                    self._lose(str(error))
                    return

    def _work(self, bus: ServoBus) -> None:
        while not self._jobs.empty():
            job, answer = self._jobs.get_nowait()
            try:
                job(bus)
            except RobotError as error:
                answer.put(error)
            else:
                answer.put(None)

    def _read(self, bus: ServoBus) -> None:
        asked_ns = time.monotonic_ns()
        replies = bus.sync_read(self._calibration.servos, Register.PRESENT_POSITION, REPORT_BYTES)
        reading = _reading(asked_ns, [replies[servo] for servo in self._calibration.servos])
        with self.news:
            self.reading = reading
            self.news.notify_all()

    def _send(self, bus: ServoBus) -> None:
        speed = to_word(round(self._options.joint_speed_rad_s * STEPS_PER_RAD))
        with self.news:
            goals = self._goals
        servos = self._calibration.servos
        data = {servo: to_word(goal) + b"\0\0" + speed for servo, goal in zip(servos, goals, strict=True)}
        bus.sync_write(Register.GOAL_POSITION, data)

    def _tick(self, dt_s: float) -> None:
        with self.news:
            reading = self.reading
            if reading is None:
                return
            self._spare_gripper(reading, dt_s)
            if self._motion is None:
                return
            fault = self._trouble(reading)
            if fault is not None:
                self._goals = (*reading.steps[:5], self._goals[5])  # no more pushing
                self._finish(*fault)
                return
            joints = self._motion.step(dt_s)
            if joints is not None:
                self._follow(joints, reading)
            else:
                self._settle(reading, dt_s)

    def _follow(self, joints: Joints, reading: Reading) -> None:
        steps = self._calibration.steps(joints)
        if steps is None:
            self._goals = (*reading.steps[:5], self._goals[5])
            self._finish(MotionOutcome.STOPPED, "a joint came to its limit")
        else:
            self._goals = (*steps, self._goals[5])

    def _settle(self, reading: Reading, dt_s: float) -> None:
        """The goals stand; waits until the arm does."""
        self._settle_s += dt_s
        behind = self._behind_rad(reading)
        slow = max(abs(speed) for speed in reading.speeds[:5]) <= STANDING_STEPS_S
        if (slow and behind <= SETTLED_RAD) or self._settle_s > SETTLE_S:
            reached = MotionOutcome.STOPPED if self._braked else MotionOutcome.REACHED
            if behind > self._options.follow_error_rad / 2:
                self._finish(MotionOutcome.CONTACT, f"stands {behind:.3f} rad short of its goal")
            else:
                self._finish(reached, "")

    def _behind_rad(self, reading: Reading) -> float:
        return max(abs(a - b) for a, b in zip(reading.steps[:5], self._goals[:5], strict=True)) / STEPS_PER_RAD

    def _trouble(self, reading: Reading) -> tuple[MotionOutcome, str] | None:
        for servo, fault in zip(self._calibration.servos[:5], reading.faults, strict=False):
            if fault:
                return MotionOutcome.FAULT, f"servo {servo} reports {fault.name}"
        behind = self._behind_rad(reading)
        if behind > self._options.follow_error_rad:
            return MotionOutcome.CONTACT, f"a joint is {behind:.2f} rad behind its goal: something is in the way"
        return None

    def _spare_gripper(self, reading: Reading, dt_s: float) -> None:
        """A motor that pushes in vain burns: its goal comes nearer to where it is until the load is bearable."""
        pushing = abs(reading.loads[5]) > self._spare_load and abs(reading.speeds[5]) <= STANDING_STEPS_S
        self._overload_s = self._overload_s + dt_s if pushing else 0.0
        if self._overload_s > OVERLOAD_S:
            self._goals = (*self._goals[:5], (reading.steps[5] + self._goals[5]) // 2)
            self._overload_s = 0.0

    @property
    def _spare_load(self) -> float:
        return OVERLOAD * self._options.gripper_torque_limit

    def _finish(self, outcome: MotionOutcome, reason: str) -> None:
        self._motion, self._end = None, (outcome, reason)
        self.news.notify_all()

    def _lose(self, why: str) -> None:
        with self.news:
            self.lost, self._motion = why, None
            self.news.notify_all()


def _patiently(ask: Callable[[], object]) -> None:
    """Asks again where the line was disturbed; only for what may be said twice."""
    for left in reversed(range(TRIES)):
        try:
            ask()
        except BusError:
            if left == 0:
                raise
            time.sleep(0.02)
        else:
            return


def _reading(t_host_ns: int, replies: list[Reply]) -> Reading:
    data = [reply.data for reply in replies]
    return Reading(
        t_host_ns,
        tuple(from_word(one[0:2]) for one in data),
        tuple(from_word(one[2:4]) for one in data),
        tuple(from_word(one[4:6], sign_bit=10) / 1000 for one in data),
        float(max(one[7] for one in data)),
        tuple(reply.faults for reply in replies),
    )
