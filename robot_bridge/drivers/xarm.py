"""UFACTORY xArm through the vendor's library: motions by the library, reading and stopping by a channel of our own.

The library's own view of the arm is never used for judging: its reports come five times a second, it replaces numbers
that are none by old ones, and it returns an old pose where the controller is silent. A motion in position mode runs to
its end in the controller even if this process dies or the network does. So straight motions are streams of velocities,
each of which the controller drops by itself; only ``move_joints`` uses position mode.
"""

import contextlib
import dataclasses
import math
import threading
import time
from typing import Any, Final

from qtopt.errors import RobotError
from robot_bridge.contracts import Arm, ArmMode, ArmState, Capability, MotionOutcome, MotionResult, Pose
from robot_bridge.driver import ArmDriver, GripperDriver, require_serial
from robot_bridge.drivers.xarm_gripper import XArmGripper
from robot_bridge.drivers.xarm_motion import NEAR_RAD, Approach, near, refusal_of, still, too_fast, velocity_towards
from robot_bridge.drivers.xarm_options import XArmGripperOptions, XArmOptions
from robot_bridge.drivers.xarm_sdk import (
    HIDES_TOOL,
    apply_limits,
    check_limits,
    check_settings,
    code_words,
    open_sdk,
    why_not,
)
from robot_bridge.drivers.xarm_stop import XArmStopChannel
from robot_bridge.drivers.xarm_wire import REPORT_PERIOD_S, SLOW_STOP, STOP

POSITION, VELOCITY = 0, 5
_STALE_S: Final = 0.25
_FIRST_REPORTS_S: Final = 5 * REPORT_PERIOD_S
_GRACE_S: Final = 0.3
_MOST_VALID_S: Final = 1.0
_APPROACHES: Final = 3
_STREAM_S, _STREAM_EVERY_S = 0.2, 2 * REPORT_PERIOD_S
"""For so long a velocity of a straight motion is good, and so often the next one is sent."""
_RECOVER_S: Final = 3.0
_SETTLE_S: Final = 1.0
_CAPABILITIES = frozenset(
    {
        Capability.CARTESIAN_MOVE,
        Capability.CARTESIAN_SERVO,
        Capability.JOINT_MOVE,
        Capability.STOP_STATUS,
        Capability.REMOTE_UNLOCK,
        Capability.CONTROLLER_WATCHDOG,
        Capability.CONTROLLER_BOX,
        Capability.SPEED_LIMIT,
    }
)


class XArm:
    """Satisfies ``robot_bridge.contracts.Arm``."""

    def __init__(self, options: XArmOptions) -> None:
        self._options = options
        self._channel = XArmStopChannel(options)
        self._sdk: Any = None
        self._stops = 0
        self._stopped_by_us = False
        self._closed = False
        self._motion = threading.Lock()
        self._looked = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do; the watchdog guards all but ``move_joints``."""
        return _CAPABILITIES

    @property
    def sdk(self) -> Any:
        """The vendor's ``XArmAPI``, for the gripper that hangs on it. Raises RobotError before ``connect``."""
        if self._sdk is None:
            raise RobotError("the xArm is not connected; call connect() first")
        return self._sdk

    def connect(self, deadline_s: float) -> None:
        """Connects, sets the controller's limits and reads them back, and ends a mere stop; nothing moves by that.

        Every process of a cell stops the arm when it ends, which the next one finds as somebody else's stop. It is the
        cell's lock that keeps the arm standing until a person has acknowledged, and errors and motors stay as they are.
        """
        until_s = time.monotonic() + deadline_s
        self._channel.connect(deadline_s)
        try:
            self._sdk = open_sdk(self._options, max(0.5, until_s - time.monotonic()))
            require_serial(self._options.serial, str(self._sdk.sn), self._options.host)
            self._channel.set_collision_sensitivity(self._options.collision_sensitivity)
            apply_limits(self._sdk, self._options)
            error = self._channel.error()
            if error not in HIDES_TOOL:  # else ``recover`` looks, before anything moves
                self._check_settings()
            if int(self._channel.state().codes["state"]) >= STOP and not error:
                self._channel.stop()  # drops what was queued
                self._enter(POSITION)
                self._settled(lambda state: state.mode is ArmMode.READY, _RECOVER_S)
        except BaseException:
            self.close()
            raise

    def state(self) -> ArmState:
        """Returns the newest report of the 100 Hz port; HOLD instead of IDLE where the stop was our own."""
        state = self._channel.state()
        if state.mode is ArmMode.IDLE and self._stopped_by_us:
            state = dataclasses.replace(state, mode=ArmMode.HOLD)
        if self._sdk is not None:
            state = dataclasses.replace(state, joint_temperature_c=float(max(self._sdk.temperatures)))
        return state

    def move_to(self, target: Pose, speed_m_s: float, accel_m_s2: float, deadline_s: float) -> MotionResult:
        """Moves in a straight line, by velocities that the controller drops by itself when no other follows."""
        refusal = refusal_of(target, self._options) or too_fast(speed_m_s, accel_m_s2, self._options)
        if refusal:
            return self._rejected(refusal)
        until_s = time.monotonic() + deadline_s
        with self._motion:
            stops = self._stops
            ended = self._ready(VELOCITY) or self._unanswered()
            for _ in range(_APPROACHES):
                approach = Approach(target, speed_m_s, accel_m_s2)
                while ended is None:
                    ended = self._steer(approach, stops, until_s)
                if ended.outcome is not MotionOutcome.REACHED or (ended.pose is not None and near(ended.pose, target)):
                    return ended
                ended = None  # reports that came late told of a place where it did not stay
        return self._ended(MotionOutcome.STOPPED, "it does not come to rest at its target")

    def move_joints(self, target_rad: tuple[float, ...], speed_rad_s: float, deadline_s: float) -> MotionResult:
        """Moves in joint space; the controller's fence holds on the way."""
        count = len(self.state().joints_rad)
        if not 5 <= len(target_rad) <= count or not all(map(math.isfinite, target_rad)):
            return self._rejected(f"found joints {target_rad}, expected {self.sdk.axis} finite angles [rad]")
        if not 0.0 < speed_rad_s <= self._options.joint_speed_limit_rad_s:
            return self._rejected(f"joint speed {speed_rad_s} rad/s; limit {self._options.joint_speed_limit_rad_s}")

        def send() -> int:
            angles = list(target_rad)
            return int(self.sdk.set_servo_angle(angle=angles, speed=speed_rad_s, mvacc=2.0, is_radian=True, wait=False))

        def there(state: ArmState) -> bool:
            return all(abs(a - b) < NEAR_RAD for a, b in zip(target_rad, state.joints_rad, strict=False))

        return self._move(send, there, deadline_s)

    def servo(self, target: Pose, valid_for_s: float) -> MotionResult:
        """Moves towards the target at a speed that shrinks with the way left, and never past it if the stream ends."""
        refusal = refusal_of(target, self._options)
        if refusal:
            return self._rejected(refusal)
        if not 0.0 < valid_for_s <= _MOST_VALID_S:
            return self._rejected(f"valid_for_s is {valid_for_s}, expected more than 0, at most {_MOST_VALID_S} s")
        with self._motion:
            trouble = self._ready(VELOCITY)
            if trouble is not None:
                return trouble
            here = self._channel.state()
            velocity = velocity_towards(here.pose, target, valid_for_s, self._options)
            code = int(self.sdk.vc_set_cartesian_velocity(velocity, is_radian=True, duration=valid_for_s))
        if code != 0:
            return self._failed(code)
        return MotionResult(MotionOutcome.REACHED, pose=here.pose)

    def hold(self) -> None:
        """Ends a motion smoothly; the next command moves again."""
        self._note_stop()
        if not self._channel.set_state(SLOW_STOP):
            self.stop(0.0)

    def stop(self, decel_m_s2: float) -> None:
        """Stops over a connection of its own, never behind a command that waits; the controller chooses how hard."""
        self._note_stop()
        if not self._channel.stop() and self._sdk is not None:
            with contextlib.suppress(Exception):  # the library may fail in any way; a stop never raises
                self._sdk.set_state(STOP)

    def recover(self) -> None:
        """Clears errors, switches the motors on and makes ready; what was queued is dropped first.

        Raises:
            RobotError: the error stays, or limits, tool offset or sensitivity are not those of the options.
        """
        sdk = self.sdk
        self._stopped_by_us = False
        self._channel.stop()
        sdk.clean_error()
        sdk.clean_warn()
        sdk.motion_enable(enable=True)
        error = self._channel.error()
        if error:
            raise RobotError(f"the xArm stays faulty, {why_not(error, 0)}: remove the cause and recover again")
        check_limits(sdk, self._options)
        self._check_settings()
        self._enter(POSITION)
        state = self._settled(lambda state: state.mode in (ArmMode.READY, ArmMode.MOVING), _RECOVER_S)
        if not state.mode.can_move:
            raise RobotError(f"the xArm is {state.mode} after recover, expected ready: look at it in UFACTORY Studio")

    def zero_wrench(self) -> None:
        """Does nothing: there is no wrench."""

    def set_payload(self, mass_kg: float, centre_m: tuple[float, float, float]) -> None:
        """Tells the controller; raises RobotError."""
        if not 0.0 <= mass_kg <= 7.0 or max(map(abs, centre_m)) > 0.5:
            raise RobotError(f"payload {mass_kg} kg at {centre_m} m, expected 0 to 7 kg within 0.5 m of the flange")
        code = int(self.sdk.set_tcp_load(mass_kg, [1000 * value for value in centre_m], wait=False))
        if code != 0:
            raise RobotError(f"the xArm controller refused the payload: {code_words(code)}")

    def close(self) -> None:
        """Leaves the arm standing still and frees all connections; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RobotError):
            if self._channel.state().mode is ArmMode.MOVING:
                self.stop(0.0)
        if self._sdk is not None:
            with contextlib.suppress(Exception):  # the library's own clean-up must not keep ours from happening
                self._sdk.disconnect()
        self._channel.close()

    def _note_stop(self) -> None:
        """Remembers that the stop is ours, unless the arm already stands for another reason."""
        self._stops += 1
        with contextlib.suppress(RobotError):
            if self._channel.state().mode in (ArmMode.READY, ArmMode.MOVING):
                self._stopped_by_us = True

    def _move(self, send: Any, there: Any, deadline_s: float) -> MotionResult:
        until_s = time.monotonic() + deadline_s
        with self._motion:
            stops = self._stops
            trouble = self._ready(POSITION) or self._unanswered()
            if trouble is not None:
                return trouble
            sent_s = self._channel.state().t_controller_s
            code = send()
            if self._stops != stops:
                self._channel.stop()
                return self._ended(MotionOutcome.STOPPED, "stopped before it began")
            if code != 0:
                return self._failed(code)
            return self._watch(there, stops, sent_s, until_s)

    def _steer(self, approach: Approach, stops: int, until_s: float) -> MotionResult | None:
        """Sends the next velocity of a motion and waits for a report; returns how it ended, None while it goes on."""
        state = self._channel.state()
        ended = self._interrupted(state, stops, until_s)
        if ended is not None:
            return ended
        velocity = approach.velocity(state.pose, _STREAM_EVERY_S)
        code = int(self.sdk.vc_set_cartesian_velocity(velocity, is_radian=True, duration=_STREAM_S))
        if self._stops != stops:
            self._channel.stop()
            return self._ended(MotionOutcome.STOPPED, "stop() or hold()")
        if code != 0:
            return self._failed(code)
        if not any(velocity):
            return self._ended(MotionOutcome.REACHED, "")
        after_s = state.t_controller_s + _STREAM_EVERY_S - REPORT_PERIOD_S / 2
        self._wait(lambda now: now.t_controller_s > after_s, _STREAM_S / 2)
        return None

    def _unanswered(self) -> MotionResult | None:
        """Returns that no command is answered, if that is so: the library would wait ten seconds for one."""
        if self._channel.answers():
            return None
        self.stop(0.0)
        return MotionResult(MotionOutcome.LINK_LOST, "the xArm controller reports, but answers no command")

    def _interrupted(self, state: ArmState, stops: int, until_s: float) -> MotionResult | None:
        """Returns what ended a motion before its target; None where nothing did."""
        silent_s = (time.monotonic_ns() - state.t_host_ns) * 1e-9
        if state.mode is ArmMode.OFFLINE or silent_s > _STALE_S:
            self.stop(0.0)
            return MotionResult(MotionOutcome.LINK_LOST, f"the xArm's reports stopped {silent_s:.2f} s ago")
        if int(state.codes["state"]) >= STOP or self._stops != stops:
            return self._stopped(ours=self._stops != stops)
        if time.monotonic() > until_s:
            self.stop(0.0)
            return self._ended(MotionOutcome.TIMEOUT, "the deadline passed")
        return None

    def _check_settings(self) -> None:
        check_settings(self.sdk, self._options)
        self._looked = True

    def _ready(self, mode: int) -> MotionResult | None:
        """Brings the controller into a mode; returns why it cannot move, if it cannot."""
        stops, state = self._stops, self.state()
        silent_s = (time.monotonic_ns() - state.t_host_ns) * 1e-9
        if state.mode is ArmMode.OFFLINE or silent_s > _STALE_S:
            return MotionResult(MotionOutcome.LINK_LOST, f"the xArm's reports stopped {silent_s:.2f} s ago")
        if not self._looked:
            return self._rejected(
                "its tool offset has not been compared yet: recover() after a person has looked at it"
            )
        stopped = int(state.codes["state"]) >= STOP
        if not state.mode.can_move or (stopped and not self._stopped_by_us):
            words = str(state.codes.get("error_text", "")) or "stopped by something else than this driver"
            return self._rejected(f"the arm is {state.mode}, {words}: recover() after a person has looked at it")
        if state.mode is ArmMode.HOLD or state.codes["mode"] != mode:
            self._enter(mode)
            if self._stops != stops:
                self._channel.stop()
                return self._ended(MotionOutcome.STOPPED, "stopped before it began")
            after = self._settled(lambda now: now.codes["mode"] == mode and now.mode is ArmMode.READY, _SETTLE_S)
            if after.codes["mode"] != mode or not after.mode.can_move:
                return self._rejected(f"the controller did not enter mode {mode}: it is {after.mode}")
            self._stopped_by_us = False
        return None

    def _enter(self, mode: int) -> None:
        """Changes the mode, and waits for the library's slower reports to show it: it would warn at each command."""
        self.sdk.set_mode(mode)
        self.sdk.set_state(0)
        until_s = time.monotonic() + _GRACE_S
        while self.sdk.mode != mode and time.monotonic() < until_s:
            time.sleep(0.01)

    def _watch(self, there: Any, stops: int, sent_s: float, until_s: float) -> MotionResult:
        """Waits for the end of a motion, whatever it is."""
        clock_s = sent_s
        while True:
            state = self._channel.wait(clock_s, 0.05)
            clock_s = state.t_controller_s
            ended = self._interrupted(state, stops, until_s)
            if ended is not None:
                return ended
            idle = int(state.codes["state"]) in (0, 2) and state.codes["waiting"] == 0
            if idle and clock_s - sent_s > _FIRST_REPORTS_S:
                if there(state):
                    return MotionResult(MotionOutcome.REACHED, pose=state.pose)
                if clock_s - sent_s > _GRACE_S:
                    return self._ended(MotionOutcome.STOPPED, "the controller ended the motion short of its target")

    def _stopped(self, *, ours: bool) -> MotionResult:
        error = self._channel.error()
        if error:
            return self._ended(MotionOutcome.FAULT, why_not(error, 0))
        if ours:
            return self._ended(MotionOutcome.STOPPED, "stop() or hold()")
        return self._ended(MotionOutcome.FAULT, "stopped by something else than this driver")

    def _failed(self, code: int) -> MotionResult:
        """A command that the library or the controller did not take."""
        if code in (-1, 3, 8):
            self.stop(0.0)
            return MotionResult(MotionOutcome.LINK_LOST, code_words(code))
        return self._rejected(why_not(self._channel.error(), code))

    def _rejected(self, reason: str) -> MotionResult:
        return MotionResult(MotionOutcome.REJECTED, reason, self._pose())

    def _ended(self, outcome: MotionOutcome, reason: str) -> MotionResult:
        """Returns a result once the tool stands still."""
        self._settled(still, timeout_s=1.0)
        return MotionResult(outcome, reason, self._pose())

    def _pose(self) -> Pose | None:
        with contextlib.suppress(RobotError):
            return self._channel.state().pose
        return None

    def _settled(self, condition: Any, timeout_s: float) -> ArmState:
        """Waits for a condition in reports that were made after the last command.

        On a busy machine those that lie in the socket still tell of the time before it.
        """
        after_s = self._channel.state().t_controller_s + 8 * REPORT_PERIOD_S
        return self._wait(lambda state: state.t_controller_s > after_s and condition(state), timeout_s)

    def _wait(self, condition: Any, timeout_s: float) -> ArmState:
        until_s = time.monotonic() + timeout_s
        state = self._channel.state()
        while not condition(state) and time.monotonic() < until_s:
            state = self._channel.wait(state.t_controller_s, 0.05)
        return state


def _open_gripper(options: XArmGripperOptions, arm: Arm) -> XArmGripper:
    if not isinstance(arm, XArm):
        raise RobotError(f"the xArm gripper hangs on an xArm's tool bus; the arm is a {type(arm).__name__}")
    return XArmGripper(options, arm)


DRIVER = ArmDriver(XArmOptions, XArm, XArmStopChannel, "xarm")
GRIPPER_DRIVER = GripperDriver(XArmGripperOptions, _open_gripper, "xarm")
