"""Any arm behind the remote-arm protocol: an HTTP client with a heartbeat, numbered commands and a token.

One connection asks for the state all the time, which is the heartbeat that the server's watchdog wants; another one
carries commands, two are kept open for stops. A motion is accepted at once and its end read from the state, so no
request waits for it. When the reports stop, the link counts as lost for good: the object is to be thrown away.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.contracts import Arm, ArmState, Capability, MotionOutcome, MotionResult, Pose
from robot_bridge.driver import ArmDriver, GripperDriver
from robot_bridge.drivers.http_gripper import HttpGripper, HttpGripperOptions
from robot_bridge.drivers.http_stop import HttpStopChannel
from robot_bridge.remote.endpoint import Endpoint, LinkOptions
from robot_bridge.remote.link import Link, Refused
from robot_bridge.remote.messages import (
    MAX_DECEL_M_S2,
    MIN_DECEL_M_S2,
    PROTOCOL,
    BadMessage,
    Json,
    count,
    number,
    read_result,
    read_state,
    text,
    write_pose,
)
from robot_bridge.remote.stop_link import StopLink

COMMAND_TIMEOUT_S: Final = 0.5
STOP_TIMEOUT_S: Final = 0.3
OWN_DECEL_M_S2: Final = 2.0
"""Of stops that nobody asked for: as hard as a stop brakes where the cell file says nothing."""
OLD_S: Final = 0.5
"""Where the newest report is older, nobody sees what a motion would do."""
GRACE_S: Final = 1.0
SHORT_JOB_S: Final = 15.0
RELEASE_TIMEOUT_S: Final = 1.0
CONFLICT: Final = 409


class HttpArm:
    """Satisfies ``robot_bridge.contracts.Arm``."""

    def __init__(self, options: LinkOptions) -> None:
        self._options = options
        endpoint = Endpoint(options)
        self._commands, self._reports, self._stops = Link(endpoint), Link(endpoint), StopLink(endpoint)
        self._capabilities: frozenset[Capability] = frozenset()
        self._gripper: Json | None = None
        self._session = ""
        self._number = 0
        self._numbers = threading.Lock()
        self._news = threading.Condition()
        self._state: ArmState | None = None
        self._heard_s = 0.0
        self._result: tuple[int, MotionResult] | None = None
        self._trouble = ""
        self._lost = ""
        self._closing = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the arm on the other side can do, and ``CONTROLLER_WATCHDOG``: the server watches its client."""
        return self._capabilities

    @property
    def gripper_facts(self) -> Json | None:
        """The gripper's capabilities and range as the server gives them; None without a gripper."""
        return self._gripper

    def connect(self, deadline_s: float) -> None:
        """Takes the session and waits for the first report; raises RobotError with the server's words."""
        try:
            self._take_session(deadline_s)
        except RobotError:
            self.close()
            raise

    def _take_session(self, deadline_s: float) -> None:
        end_s = time.monotonic() + deadline_s
        facts = self._commands.get("/v1/capabilities", deadline_s)
        if facts.get("protocol") != PROTOCOL:
            raise RobotError(f"the server speaks protocol {facts.get('protocol')!r}, expected {PROTOCOL}")
        self._capabilities = _capabilities(facts)
        self._gripper = facts.get("gripper")
        self._stops.open(max(0.1, end_s - time.monotonic()))  # before anything can move
        opened = self._commands.post("/v1/session", {}, max(0.1, end_s - time.monotonic()))
        self._session, watchdog_s = text(opened, "session"), number(opened, "watchdog_s", 0.01)
        self._heard_s = time.monotonic()
        period_s = min(1.0 / self._options.poll_hz, watchdog_s / 5)
        self._thread = threading.Thread(target=self._poll, args=(period_s,), name="http-arm", daemon=True)
        self._thread.start()
        with self._news:
            if not self._news.wait_for(lambda: self._state is not None, max(0.1, end_s - time.monotonic())):
                raise RobotError(f"the server gave no state within {deadline_s:g} s: {self._trouble or 'silent'}")

    def state(self) -> ArmState:
        """Returns the newest report; raises RobotError before the first."""
        state = self._state
        if state is None:
            raise RobotError(
                f"no report from {self._options.url} yet; call connect() first ({self._trouble or 'silent'})"
            )
        return state

    def move_to(self, target: Pose, speed_m_s: float, accel_m_s2: float, deadline_s: float) -> MotionResult:
        """Moves in a straight line; LINK_LOST when the reports stop for ``link_timeout_s``."""
        message = {
            "pose": write_pose(target),
            "speed_m_s": speed_m_s,
            "accel_m_s2": accel_m_s2,
            "deadline_s": deadline_s,
        }
        return self._motion("/v1/move", message, deadline_s)

    def move_joints(self, target_rad: tuple[float, ...], speed_rad_s: float, deadline_s: float) -> MotionResult:
        """Moves in joint space, where the arm on the other side can."""
        message = {"joints_rad": list(target_rad), "speed_rad_s": speed_rad_s, "deadline_s": deadline_s}
        return self._motion("/v1/joints", message, deadline_s)

    def servo(self, target: Pose, valid_for_s: float) -> MotionResult:
        """Sends one target of a stream."""
        message = {"pose": write_pose(target), "valid_for_s": valid_for_s}
        try:
            return read_result(self._send("/v1/servo", message))
        except (Refused, BadMessage) as error:
            return MotionResult(MotionOutcome.REJECTED, str(error))
        except RobotError as error:
            return MotionResult(MotionOutcome.LINK_LOST, str(error))

    def hold(self) -> None:
        """Ends the motion smoothly; raises RobotError where the server does not answer."""
        self._stops.post("/v1/hold", {"session": self._session, "number": self._next()}, STOP_TIMEOUT_S)

    def stop(self, decel_m_s2: float) -> None:
        """Stops the arm, braking with 0.01 to 10 m/s2, whichever is nearest to ``decel_m_s2``.

        Where the server does not answer, its watchdog stops the arm: the heartbeat ends with the link.
        """
        decel_m_s2 = min(max(MIN_DECEL_M_S2, decel_m_s2), MAX_DECEL_M_S2)
        try:
            message = {"session": self._session, "number": self._next(), "decel_m_s2": decel_m_s2}
            self._stops.post("/v1/stop", message, STOP_TIMEOUT_S)
        except RobotError as error:
            self._lose(f"a stop was not answered: {error}")

    def recover(self) -> None:
        """Clears a fault; raises RobotError with the server's reason."""
        self._short_job("/v1/recover", {})

    def zero_wrench(self) -> None:
        """Takes the present wrench as zero."""
        self._short_job("/v1/zero_wrench", {})

    def set_payload(self, mass_kg: float, centre_m: tuple[float, float, float]) -> None:
        """Tells the arm's controller what the flange carries."""
        self._short_job("/v1/payload", {"mass_kg": mass_kg, "centre_m": list(centre_m)})

    def close(self) -> None:
        """Gives the session back, which stops the arm; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2.0)
        if self._session:  # also over a lost link: one answer that came late is no reason to keep the next client out
            try:
                self._stops.post("/v1/release", {"session": self._session}, RELEASE_TIMEOUT_S)
            except RobotError as error:
                self._lose(str(error))
        with self._news:
            self._closed = True
            self._news.notify_all()  # nobody will hear of the end of a motion that was under way
        self._stops.close()
        self._commands.close()
        self._reports.close()

    def command(self, path: str, message: Json) -> int:
        """Sends a numbered command and returns its number; raises RobotError."""
        return count(self._send(path, message), "number")

    def ask(self, path: str) -> tuple[Json, int]:
        """Returns the answer to a question and when it was asked (monotonic ns); raises RobotError."""
        asked_ns = time.monotonic_ns()
        return self._commands.get(path, COMMAND_TIMEOUT_S), asked_ns

    def _next(self) -> int:
        with self._numbers:
            self._number += 1
            return self._number

    def _send(self, path: str, message: Json) -> Json:
        if self._lost:
            raise RobotError(f"the link to {self._options.url} is lost: {self._lost}. Start a new process and connect")
        if not self._session:
            raise RobotError("not connected; call connect() first")
        return self._commands.post(
            path, {"session": self._session, "number": self._next(), **message}, COMMAND_TIMEOUT_S
        )

    def _motion(self, path: str, message: Json, deadline_s: float) -> MotionResult:
        end_s = time.monotonic() + deadline_s
        state = self._state
        if state is not None and not self._lost and (age_s := (time.monotonic_ns() - state.t_host_ns) / 1e9) > OLD_S:
            return MotionResult(MotionOutcome.REJECTED, f"nothing new from the arm for {age_s:.2f} s")
        try:
            asked = self.command(path, message)
        except (Refused, BadMessage) as error:
            return MotionResult(MotionOutcome.REJECTED, str(error))
        except RobotError as error:
            self.stop(OWN_DECEL_M_S2)  # the command may have arrived
            self._lose(str(error))
            return MotionResult(MotionOutcome.LINK_LOST, str(error))
        return self._wait(asked, end_s)

    def _wait(self, asked: int, end_s: float) -> MotionResult:
        with self._news:
            self._news.wait_for(
                lambda: self._ended(asked) or bool(self._lost) or self._closed, end_s + GRACE_S - time.monotonic()
            )
            ended, lost = self._result if self._ended(asked) else None, self._lost
        if ended is not None:
            return ended[1]
        if lost:
            return MotionResult(MotionOutcome.LINK_LOST, lost)
        if self._closed:
            return MotionResult(MotionOutcome.STOPPED, "the connection was closed, which stops the arm")
        self.stop(OWN_DECEL_M_S2)
        return MotionResult(
            MotionOutcome.TIMEOUT, "the server did not report the motion's end in time", self.state().pose
        )

    def _ended(self, asked: int) -> bool:
        return self._result is not None and self._result[0] == asked

    def _short_job(self, path: str, message: Json) -> None:
        result = self._wait(self.command(path, message), time.monotonic() + SHORT_JOB_S)
        if result.outcome is not MotionOutcome.REACHED:
            raise RobotError(f"{path} failed: {result.reason or result.outcome}")

    def _poll(self, period_s: float) -> None:
        beat = 0
        while not self._closing.wait(period_s) and not self._lost:
            beat += 1
            self._hear(beat)

    def _hear(self, beat: int) -> None:
        timeout_s = self._options.link_timeout_s
        asked_ns = time.monotonic_ns()
        try:
            answer = self._reports.post("/v1/heartbeat", {"session": self._session, "number": beat}, timeout_s)
            state, result = read_state(answer["state"], asked_ns), answer.get("result")
            ended = None if result is None else (count(result, "number"), read_result(result))
        except Refused as error:
            if error.status == CONFLICT:
                self._lose(str(error))
            self._complain(str(error), timeout_s)
            return
        except (RobotError, KeyError, TypeError, AttributeError) as error:
            self._complain(str(error), timeout_s)
            return
        with self._news:
            self._state, self._result, self._heard_s = state, ended, time.monotonic()
            self._news.notify_all()

    def _complain(self, trouble: str, timeout_s: float) -> None:
        self._trouble = trouble
        if time.monotonic() - self._heard_s > timeout_s:
            self._lose(f"no report for {timeout_s:g} s: {trouble}")

    def _lose(self, why: str) -> None:
        with self._news:
            self._lost = self._lost or why
            self._news.notify_all()


def _capabilities(facts: Json) -> frozenset[Capability]:
    listed = facts.get("capabilities")
    if not isinstance(listed, list):
        raise RobotError(f"the server gives capabilities as {listed!r}, expected a list of names")
    # A name that this version does not know is a promise that it does not need.
    return frozenset(Capability(name) for name in listed if name in set(Capability)) | {Capability.CONTROLLER_WATCHDOG}


def _open_gripper(options: HttpGripperOptions, arm: Arm) -> HttpGripper:
    if not isinstance(arm, HttpArm):
        raise RobotError(
            f"the http gripper is behind the arm's own server, but the arm's driver is {type(arm).__name__}"
        )
    return HttpGripper(options, arm)


_open: Callable[[LinkOptions], Arm] = HttpArm

DRIVER = ArmDriver(options=LinkOptions, open=_open, open_stop_channel=HttpStopChannel)
GRIPPER_DRIVER = GripperDriver(options=HttpGripperOptions, open=_open_gripper)
