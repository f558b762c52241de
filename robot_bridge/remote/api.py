"""What each path of the remote-arm protocol does, without HTTP: JSON in, JSON out, errors raised."""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.contracts import Arm, Capability, Gripper, GripperState, MotionOutcome, MotionResult, ObjectSensed
from robot_bridge.remote.messages import (
    MAX_DECEL_M_S2,
    MIN_DECEL_M_S2,
    PROTOCOL,
    Json,
    count,
    number,
    numbers,
    read_pose,
    text,
    write_gripper,
    write_state,
)
from robot_bridge.remote.session import Session
from robot_bridge.remote.worker import Busy, Job, Worker

_log = logging.getLogger(__name__)

MAX_DEADLINE_S: Final = 120.0
MAX_ACCEL_M_S2: Final = 5.0
MAX_JOINT_SPEED_RAD_S: Final = 2.0
TICK_S: Final = 0.02
SETTLE_S: Final = 3.0
"""How long a new client waits at most for what the one before had begun."""
COMPLAIN_S: Final = 1.0
"""A stop that the arm does not take is tried again with every tick, but told of only so often."""

Route = Callable[[Json], Json]


class ArmApi:
    """An arm and, where there is one, a gripper, commanded by one session; a watchdog stops them when it falls silent.

    Args:
        arm: connected.
        gripper: connected; None without one. A driver that shares the arm's connection must allow calls from a second
            thread.
        watchdog_s: silence [s] of the client after which the arm is stopped and the session ends.
        stop_decel_m_s2: how hard the watchdog brakes [m/s2].
        max_speed_m_s: no command may ask for more [m/s].
    """

    def __init__(
        self, arm: Arm, gripper: Gripper | None, watchdog_s: float, stop_decel_m_s2: float, max_speed_m_s: float
    ) -> None:
        self._arm, self._gripper = arm, gripper
        self._watchdog_s, self._decel, self._max_speed = watchdog_s, stop_decel_m_s2, max_speed_m_s
        self._session = Session(watchdog_s, time.monotonic)
        self._fingers: GripperState | None = None
        self._fingers_fault = "the gripper was not read yet"
        self._closing = threading.Event()
        self._arriving = threading.Lock()
        """Held while a command is admitted and handed over, so that no stop falls between the two."""
        self._brake: Callable[[], None] = self._stand
        self._brake_due = False
        """Whether a brake was not taken: the arm's own code may raise anything, and the watchdog goes on trying."""
        self._complained_s = -math.inf
        self._arm_worker = Worker("arm-commands")
        self._gripper_worker = Worker("gripper-commands", self._read_fingers)
        self._watchdog = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._watchdog.start()
        self.reads: dict[str, Callable[[], Json]] = {
            "/v1/capabilities": self._capabilities,
            "/v1/state": self._state,
            "/v1/gripper": self._gripper_state,
        }
        self.commands: dict[str, Route] = {
            "/v1/session": self._open_session,
            "/v1/release": self._release,
            "/v1/heartbeat": self._heartbeat,
            "/v1/move": self._move,
            "/v1/joints": self._joints,
            "/v1/servo": self._servo,
            "/v1/hold": self._hold,
            "/v1/stop": self._stop,
            "/v1/recover": self._recover,
            "/v1/zero_wrench": self._zero_wrench,
            "/v1/payload": self._payload,
            "/v1/gripper/activate": self._activate,
            "/v1/gripper/move": self._grip,
        }

    def close(self) -> None:
        """Stops the arm, whatever it does, and ends the threads; arm and gripper stay connected."""
        with self._surprises_noted():
            self._halt(self._stand)
        self._closing.set()
        self._watchdog.join(2.0)
        with self._surprises_noted():
            self._stand()
        self._arm_worker.close(5.0)
        self._gripper_worker.close(1.0)

    def _stand(self) -> None:
        self._arm.stop(self._decel)

    def _halt(self, brake: Callable[[], None]) -> None:
        with self._arriving:
            self._brake = brake
            self._arm_worker.call_off()
        self._apply(brake)

    def _apply(self, brake: Callable[[], None]) -> None:
        try:
            brake()
        except Exception:
            self._brake_due = True
            raise
        self._brake_due = False

    def _brake_again(self) -> None:
        """Brakes once more what was called off, because a stop just before a motion began has no effect on it."""
        try:
            self._apply(self._brake)
        except Exception as error:
            self._apply(self._stand)
            self._complain("the arm is stopped, as it does not hold", error)

    def _watch(self) -> None:
        while not self._closing.wait(TICK_S):
            with self._surprises_noted():
                self._look()

    def _look(self) -> None:
        if self._session.expire():
            _log.error("the client was silent for %g s: the arm is stopped", self._watchdog_s)
            self._end_session()
        elif self._arm_worker.called_off or self._brake_due:
            self._brake_again()

    @contextlib.contextmanager
    def _surprises_noted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._complain("the arm did not take a stop", error)

    def _complain(self, what: str, error: Exception) -> None:
        if time.monotonic() - self._complained_s > COMPLAIN_S:
            self._complained_s = time.monotonic()
            _log.error("%s: %s", what, error, exc_info=error)

    def _read_fingers(self) -> None:
        if self._gripper is None:
            return
        try:
            self._fingers, self._fingers_fault = self._gripper.state(), ""
        except Exception as error:  # a driver's surprise must not end the only thread that moves the fingers
            self._fingers_fault = str(error) or type(error).__name__

    def _capabilities(self) -> Json:
        gripper: Json | None = None
        if self._gripper is not None:
            gripper = {
                "capabilities": sorted(self._gripper.capabilities),
                "width_range_m": list(self._gripper.width_range_m),
            }
        return {
            "protocol": PROTOCOL,
            "watchdog_s": self._watchdog_s,
            "max_speed_m_s": self._max_speed,
            "capabilities": sorted(self._arm.capabilities | {Capability.CONTROLLER_WATCHDOG}),
            "gripper": gripper,
        }

    def _state(self) -> Json:
        # The result first: a state read before it could still show the motion whose end the result tells.
        result = self._arm_worker.result()
        return {"result": result, "state": write_state(self._arm.state(), time.monotonic_ns())}

    def _gripper_state(self) -> Json:
        self._need_gripper()
        result, state, busy = self._gripper_worker.result(), self._fingers, self._gripper_worker.busy
        if state is None or (self._fingers_fault and not busy):
            raise RobotError(f"the gripper gives no report: {self._fingers_fault}")
        if busy:
            state = replace(state, moving=True, object_sensed=ObjectSensed.UNKNOWN)
        return {"result": result, "state": write_gripper(state, time.monotonic_ns())}

    def _need_gripper(self) -> Gripper:
        if self._gripper is None:
            raise RobotError("this server has no gripper; give ArmServer one, or take the gripper out of the cell file")
        return self._gripper

    def _open_session(self, _: Json) -> Json:
        end_s = time.monotonic() + SETTLE_S
        workers = (self._arm_worker, self._gripper_worker)
        for worker in workers:
            if not self._session.held and not worker.settle(max(0.0, end_s - time.monotonic())):
                raise Busy("what the client before had begun has not ended yet; try again")
        while self._brake_due:
            if time.monotonic() > end_s:
                raise Busy("the arm does not take the stop that ended the motion before: see the server's log")
            time.sleep(TICK_S)
        session = self._session.claim(max(0.0, end_s - time.monotonic()))
        for worker in workers:
            worker.forget()
        return {"session": session, "watchdog_s": self._watchdog_s}

    def _release(self, message: Json) -> Json:
        self._session.release(text(message, "session"))
        self._end_session()
        return {}

    def _end_session(self) -> None:
        """Stops what the client had begun before another one is let in, which this stop would hit otherwise."""
        try:
            self._halt(self._stand)
        finally:
            self._session.free()

    def _heartbeat(self, message: Json) -> Json:
        self._session.beat(text(message, "session"), count(message, "number"))
        return self._state()

    def _speed(self, message: Json) -> float:
        return number(message, "speed_m_s", 1e-4, self._max_speed)

    def _hand_over(self, message: Json, worker: Worker, job: Job) -> int:
        asked = count(message, "number")
        with self._arriving:
            self._session.admit(text(message, "session"), asked)
            worker.submit(asked, job)
        return asked

    def _command(self, message: Json, job: Job) -> int:
        def braked() -> MotionResult | None:
            try:
                return job()
            finally:
                if self._arm_worker.called_off:
                    self._brake_again()

        return self._hand_over(message, self._arm_worker, braked)

    def _submit(self, message: Json, job: Job) -> Json:
        return {"number": self._command(message, job)}

    def _move(self, message: Json) -> Json:
        target, speed = read_pose(message), self._speed(message)
        accel = number(message, "accel_m_s2", 1e-3, MAX_ACCEL_M_S2)
        deadline = number(message, "deadline_s", 0.0, MAX_DEADLINE_S)
        return self._submit(message, lambda: self._arm.move_to(target, speed, accel, deadline))

    def _joints(self, message: Json) -> Json:
        target, speed = numbers(message, "joints_rad"), number(message, "speed_rad_s", 1e-4, MAX_JOINT_SPEED_RAD_S)
        deadline = number(message, "deadline_s", 0.0, MAX_DEADLINE_S)
        return self._submit(message, lambda: self._arm.move_joints(target, speed, deadline))

    def _servo(self, message: Json) -> Json:
        target, valid_for = read_pose(message), number(message, "valid_for_s", 1e-3, self._watchdog_s)
        return self._arm_worker.await_result(
            self._command(message, lambda: self._arm.servo(target, valid_for)), valid_for
        )

    def _hold(self, message: Json) -> Json:
        self._session.admit_stop(text(message, "session"), count(message, "number"))
        if not self._arm_worker.called_off:  # else it is braked already, maybe harder
            self._halt(self._arm.hold)
        return {}

    def _stop(self, message: Json) -> Json:
        decel = number({"decel_m_s2": self._decel} | message, "decel_m_s2", MIN_DECEL_M_S2)
        self._session.admit_stop(str(message.get("session", "")), count({"number": 0} | message, "number"))
        self._halt(lambda: self._arm.stop(min(decel, MAX_DECEL_M_S2)))  # no reason to refuse a stop
        return {}

    def _recover(self, message: Json) -> Json:
        return self._submit(message, self._arm.recover)

    def _zero_wrench(self, message: Json) -> Json:
        return self._submit(message, self._arm.zero_wrench)

    def _payload(self, message: Json) -> Json:
        mass, (x, y, z) = number(message, "mass_kg", 0.0, 100.0), numbers(message, "centre_m", 3)
        return self._submit(message, lambda: self._arm.set_payload(mass, (x, y, z)))

    def _activate(self, message: Json) -> Json:
        gripper, deadline = self._need_gripper(), number(message, "deadline_s", 0.0, MAX_DEADLINE_S)
        return self._submit_gripper(message, lambda: gripper.activate(deadline))

    def _grip(self, message: Json) -> Json:
        gripper, deadline = self._need_gripper(), number(message, "deadline_s", 0.0, MAX_DEADLINE_S)
        width, speed = number(message, "width_m", -1.0, 1.0), number(message, "speed_m_s", 0.0, 10.0)
        force = number(message, "force_n", 0.0, 1000.0)

        def job() -> MotionResult:
            self._fingers = gripper.move(width, speed, force, deadline)
            self._fingers_fault = ""
            return MotionResult(MotionOutcome.REACHED)

        return self._submit_gripper(message, job)

    def _submit_gripper(self, message: Json, job: Job) -> Json:
        return {"number": self._hand_over(message, self._gripper_worker, job)}
