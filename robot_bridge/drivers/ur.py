"""A Universal Robots arm, driven by ``ur_rtde`` and read by our own reader.

``ur_rtde`` answers from memory while nothing comes from the controller, and when its sockets drop it connects again and
sends its program again by itself, and often crashes. So it only sends commands here, in a process that ends with the
link; what the arm does is read, and the age of it judged, from a connection of our own. Motions are started, not waited
for, so that another thread can stop them. The controller's own watchdog, fed by a thread of this process, stops the arm
when this process dies or hangs.
"""

import contextlib
import threading
import time
from typing import Any

from qtopt.errors import NotReady, RobotError
from robot_bridge.contracts import ArmMode, ArmState, Capability, MotionOutcome, MotionResult, Pose
from robot_bridge.driver import ArmDriver, require_serial
from robot_bridge.drivers.dashboard import Dashboard
from robot_bridge.drivers.rotvec import speed_within_turn, to_rotvec_pose
from robot_bridge.drivers.rtde import RtdeReader
from robot_bridge.drivers.ur_installation import differences
from robot_bridge.drivers.ur_servo import UrServo
from robot_bridge.drivers.ur_state import FIELDS, UrOptions, arm_state, mode_hint
from robot_bridge.drivers.ur_stop import UrStopChannel
from robot_bridge.drivers.ur_wait import Ended, Goal, watch

_STOP_LOCK_S = 0.05
_STALE_S = 0.25
_JOINT_ACCEL_RAD_S2 = 0.8
_DEADLINE_DECEL_M_S2 = 2.0
_PROGRAM_S = 6.0
_UNLOCK_S = 2.0
_STANDSTILL_S = 2.0
_WATCHDOG_S = 0.5


class UrArm:
    """A ``robot_bridge.contracts.Arm``.

    Args:
        options: the arm.
    """

    def __init__(self, options: UrOptions) -> None:
        self._options = options
        self._reader = RtdeReader(options.host, FIELDS, options.frequency_hz)
        self._dashboard = Dashboard(options.host, timeout_s=0.5)
        self._control: Any = None
        self._lock = threading.RLock()
        self._stops = 0
        self._accel_m_s2 = 0.0
        self._servo: UrServo | None = None
        self._closing = threading.Event()
        self._payload = options.payload_kg, options.payload_centre_m

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do."""
        measured = self._options.measures_force
        return frozenset(
            {
                Capability.CARTESIAN_MOVE,
                Capability.CARTESIAN_SERVO,
                Capability.JOINT_MOVE,
                Capability.STOP_STATUS,
                Capability.REMOTE_UNLOCK,
                Capability.CONTROLLER_WATCHDOG,
                Capability.WRENCH_MEASURED if measured else Capability.WRENCH_ESTIMATED,
            }
        )

    def connect(self, deadline_s: float) -> None:
        """Connects without motion. After a protective stop it connects too, and takes motions once recovered.

        Raises:
            RobotError: nobody answers.
            NotReady: the arm is in no state to work; says which and what to do.
        """
        try:
            self._connect(deadline_s)
        except BaseException:
            self.close()
            raise

    def _connect(self, deadline_s: float) -> None:
        until = time.monotonic() + deadline_s
        self._dashboard.connect(deadline_s)
        if self._dashboard.ask("is in remote control", _left_s(until)).lower() == "false":
            raise NotReady(
                f"{self._options.host} is in local control; switch it to remote control at the top right of the pendant"
            )
        if self._options.serial:
            number = self._dashboard.ask("get serial number", _left_s(until))
            require_serial(self._options.serial, number, self._options.host)
        self._reader.connect(_left_s(until))
        state = self.state()
        if state.mode is not ArmMode.PROTECTIVE_STOP:
            self._require_ready(state)
            self._open_control()
        threading.Thread(target=self._feed_watchdog, name="ur-watchdog", daemon=True).start()

    def state(self) -> ArmState:
        """Returns the newest report at once."""
        if self._reader.lost:
            raise RobotError(f"the connection to {self._options.host} is lost: {self._reader.lost}")
        return self._last()

    def move_to(self, target: Pose, speed_m_s: float, accel_m_s2: float, deadline_s: float) -> MotionResult:
        """Moves in a straight line and returns when the arm stands still, however that came about.

        Slower than ``speed_m_s`` where the controller would turn faster than ``turn_rad_s`` of the options.
        """
        refusal = self._refusal()
        if refusal is not None:
            return refusal
        values = list(to_rotvec_pose(target))
        speed_m_s = speed_within_turn(self._last().pose, target, speed_m_s, self._options.turn_rad_s)
        return self._move(Goal(pose=target), deadline_s, "moveL", values, speed_m_s, accel_m_s2)

    def move_joints(self, target_rad: tuple[float, ...], speed_rad_s: float, deadline_s: float) -> MotionResult:
        """Moves in joint space."""
        if len(target_rad) != 6:
            return MotionResult(MotionOutcome.REJECTED, f"{len(target_rad)} joint angles given, expected 6")
        goal = Goal(joints_rad=target_rad)
        return self._move(goal, deadline_s, "moveJ", list(target_rad), speed_rad_s, _JOINT_ACCEL_RAD_S2)

    def servo(self, target: Pose, valid_for_s: float) -> MotionResult:
        """Follows ``target``; a thread of its own sends set points at the controller's rate until they run dry."""
        refusal = self._refusal()
        if refusal is not None:
            return refusal
        if self._servo is None or not self._servo.follow(target, valid_for_s):
            self._servo = UrServo(self._options, self._control, self._lock, self._last)
            self._servo.follow(target, valid_for_s)
        return MotionResult(MotionOutcome.REACHED, "following", self._last().pose)

    def hold(self) -> None:
        """Ends the motion smoothly and stands; no gentler than it began, or it would end beyond its goal."""
        self.stop(max(self._options.hold_decel_m_s2, self._accel_m_s2))

    def stop(self, decel_m_s2: float) -> None:
        """Stops through the running program; where that cannot be had at once, through the dashboard. Never raises."""
        self._stops += 1
        if self._servo is not None and self._servo.end(decel_m_s2):
            if not self._servo.ends_within(_STOP_LOCK_S):
                self._dashboard.stop()
            return
        if not self._fresh() or self._control is None or not self._lock.acquire(timeout=_STOP_LOCK_S):
            self._dashboard.stop()
            return
        try:
            self._control.stopL(max(decel_m_s2, 0.1), asynchronous=True)
        except Exception:  # whatever the library raises, the arm must stop
            self._dashboard.stop()
        finally:
            self._lock.release()

    def recover(self) -> None:
        """Unlocks a protective stop and starts the program again, without motion.

        Raises:
            RobotError: the controller refused (it does so for five seconds after the stop), or the state is one that
                only a person at the pendant can end.
        """
        state = self.state()
        if state.mode is ArmMode.PROTECTIVE_STOP:
            self._unlock()
            state = self.state()
        self._require_ready(state)
        if self._control is None:
            self._open_control()
        elif not state.program_running:
            with self._lock:
                if not self._control.reuploadScript():
                    raise RobotError(f"the control program of {self._options.host} could not be sent again; reconnect")
                self._await(lambda: self.state().program_running, _PROGRAM_S, "the control program did not start")
                self._set_up()

    def zero_wrench(self) -> None:
        """Takes the present wrench as zero."""
        with self._lock:
            if not self._require_control().zeroFtSensor():
                raise RobotError("the controller did not zero its force sensor; look at the pendant")

    def set_payload(self, mass_kg: float, centre_m: tuple[float, float, float]) -> None:
        """Tells the controller what the flange carries."""
        with self._lock:
            if not self._require_control().setPayload(mass_kg, list(centre_m)):
                raise RobotError(f"the controller did not take a payload of {mass_kg} kg; look at the pendant")
            self._payload = mass_kg, centre_m

    def close(self) -> None:
        """Stops the arm, ends the program and frees the connections; after a lost link only frees our own."""
        if self._closing.is_set():
            return
        if self._control is not None and not self._reader.lost:
            self.stop(_DEADLINE_DECEL_M_S2)
            with contextlib.suppress(RobotError):
                self._await(lambda: self.state().mode is not ArmMode.MOVING, _STANDSTILL_S, "")
        self._closing.set()
        if self._control is not None and not self._reader.lost and self._fresh():
            # The arm stands; should the library fail here, its program ends with the connection.
            with contextlib.suppress(Exception), self._lock:
                self._control.stopScript()
                self._control.disconnect()
        self._reader.close()
        self._dashboard.close()

    def _move(
        self, goal: Goal, deadline_s: float, command: str, values: list[float], speed: float, accel: float
    ) -> MotionResult:
        refusal = self._refusal()
        if refusal is not None:
            return refusal
        stops, started = self._stops, time.monotonic()
        self._accel_m_s2 = accel
        if self._servo is not None and self._servo.end(accel):
            self._servo.join(deadline_s)
        with self._lock:
            begin = getattr(self._control, command)
            try:
                accepted = stops == self._stops and begin(values, speed, accel, asynchronous=True)
            except RuntimeError as error:  # its connection broke, and the command may have arrived
                self.stop(_DEADLINE_DECEL_M_S2)
                self._dashboard.stop()
                return MotionResult(MotionOutcome.LINK_LOST, f"ur_rtde could not send {command}: {error}")
        if stops != self._stops and not accepted:
            return MotionResult(MotionOutcome.STOPPED, "stopped before it began", self._last().pose)
        if not accepted:
            return self._fault_or(MotionOutcome.REJECTED, f"the controller refused {command}")
        ended = watch(self.state, self._running, lambda: self._stops != stops, goal, started + deadline_s)
        if ended.outcome is MotionOutcome.TIMEOUT:
            self.stop(_DEADLINE_DECEL_M_S2)
            with contextlib.suppress(RobotError):
                self._await(lambda: self.state().mode is not ArmMode.MOVING, _STANDSTILL_S, "")
        return self._result(ended)

    def _result(self, ended: Ended) -> MotionResult:
        if ended.outcome is MotionOutcome.LINK_LOST:
            return MotionResult(ended.outcome, ended.reason)
        return MotionResult(ended.outcome, ended.reason, self._last().pose)

    def _last(self) -> ArmState:
        """Returns the last report, also over a link that was lost since: it may be lost at any moment of a motion."""
        return arm_state(*self._reader.newest())

    def _running(self) -> bool:
        try:
            return bool(self._control.getAsyncOperationProgressEx().isAsyncOperationRunning())
        except RuntimeError:
            return True  # its connection broke; ours tells what has come of the motion

    def _refusal(self) -> MotionResult | None:
        """Returns why no motion can start now, if that is so."""
        if self._reader.lost:
            return MotionResult(MotionOutcome.LINK_LOST, f"the connection is lost: {self._reader.lost}")
        if not self._fresh():
            return MotionResult(MotionOutcome.LINK_LOST, "no report came lately; the link may be lost")
        state = self._last()
        if not state.mode.can_move:
            return MotionResult(MotionOutcome.REJECTED, f"{state.mode}: {mode_hint(state.mode)}", state.pose)
        if self._control is None or not state.program_running:
            return MotionResult(MotionOutcome.REJECTED, "the control program does not run: recover", state.pose)
        return None

    def _fault_or(self, otherwise: MotionOutcome, reason: str) -> MotionResult:
        with contextlib.suppress(RobotError):
            state = self.state()
            if not state.mode.can_move:
                return MotionResult(MotionOutcome.FAULT, f"{state.mode}: {mode_hint(state.mode)}", state.pose)
            return MotionResult(otherwise, reason, state.pose)
        return MotionResult(MotionOutcome.LINK_LOST, self._reader.lost)

    def _fresh(self) -> bool:
        try:
            received_ns, _ = self._reader.newest()
        except RobotError:
            return False
        return not self._reader.lost and (time.monotonic_ns() - received_ns) < 1e9 * _STALE_S

    def _require_ready(self, state: ArmState) -> None:
        if not state.mode.can_move:
            raise NotReady(f"{self._options.host} is in {state.mode}: {mode_hint(state.mode)}, then try again")

    def _require_control(self) -> Any:
        if self._control is None:
            raise RobotError(f"the control program of {self._options.host} does not run; recover or connect first")
        return self._control

    def _open_control(self) -> None:
        try:
            import rtde_control
        except ImportError as error:
            raise RobotError("ur_rtde is not installed; run: pip install '.[ur]'") from error
        self._let_program_end()
        try:
            self._control = rtde_control.RTDEControlInterface(self._options.host, self._options.frequency_hz)
        except RuntimeError as error:
            raise RobotError(f"ur_rtde could not take control of {self._options.host}: {error}") from error
        with self._lock:
            self._set_up()

    def _let_program_end(self) -> None:
        """Gives the watchdog of a driver that died time to end its program.

        ``ur_rtde`` stops a program that runs, and fails where it ends by itself in just that moment.
        """
        with contextlib.suppress(RobotError):
            self._await(lambda: not self.state().program_running, 1.0 / self._options.watchdog_hz + _WATCHDOG_S, "")

    def _set_up(self) -> None:
        """Sets tool point, payload and watchdog; they live in the program and go with it.

        ``ur_rtde`` refuses commands until it has itself been told that the program runs, by a connection of its own.
        """
        self._await(self._control.isProgramRunning, _PROGRAM_S, "ur_rtde does not see the control program running")
        mass_kg, centre_m = self._payload
        taken = self._control.setTcp([*self._options.tcp_offset_m, 0.0, 0.0, 0.0])
        taken = taken and self._control.setPayload(mass_kg, list(centre_m))
        taken = taken and self._control.setWatchdog(self._options.watchdog_hz)
        if not taken:
            raise RobotError(f"{self._options.host} did not take tool point, payload and watchdog; look at the pendant")

    def _unlock(self) -> None:
        self._dashboard.ask("close safety popup")
        answer = self._dashboard.ask("unlock protective stop")
        if "releasing" not in answer.lower():
            raise RobotError(f"the controller stays in protective stop: {answer}")
        self._await(lambda: self.state().mode is not ArmMode.PROTECTIVE_STOP, _UNLOCK_S, "it stays in protective stop")

    def _await(self, condition: Any, seconds: float, otherwise: str) -> None:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise RobotError(f"{self._options.host}: {otherwise} within {seconds:.0f} s")
            time.sleep(0.01)

    def _feed_watchdog(self) -> None:
        """Tells the controller that this process lives; another command in between counts as much."""
        every_s = 1.0 / (3.0 * self._options.watchdog_hz)
        while not self._closing.wait(every_s) and not self._reader.lost:
            if self._control is not None and self._fresh() and self._lock.acquire(timeout=every_s):
                # Where no kick follows the controller stops the arm, as it should; ``recover`` needs them again.
                with contextlib.suppress(Exception):
                    self._control.kickWatchdog()
                self._lock.release()


def _left_s(until: float) -> float:
    return max(0.1, until - time.monotonic())


DRIVER = ArmDriver(UrOptions, UrArm, UrStopChannel, "ur", differences)
