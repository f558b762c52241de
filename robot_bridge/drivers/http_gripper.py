"""The gripper behind the remote-arm protocol; it shares the arm's session and connection."""

import time
from dataclasses import dataclass
from typing import Final, Protocol

from qtopt.config import STRICT
from qtopt.errors import RobotError
from robot_bridge.contracts import Capability, GripperState, MotionOutcome
from robot_bridge.remote.messages import Json, numbers, read_gripper, read_result

POLL_S: Final = 0.02
GRACE_S: Final = 1.0


class Server(Protocol):
    """What the gripper needs of the arm's connection."""

    @property
    def gripper_facts(self) -> Json | None:
        """The gripper's capabilities and range; None without a gripper."""
        ...

    def command(self, path: str, message: Json) -> int:
        """Sends a numbered command and returns its number."""
        ...

    def ask(self, path: str) -> tuple[Json, int]:
        """Returns an answer and when it was asked for [monotonic ns]."""
        ...


@dataclass(frozen=True)
class HttpGripperOptions:
    """Nothing to set: the gripper is where the arm's server is."""

    __pydantic_config__ = STRICT


class HttpGripper:
    """Satisfies ``robot_bridge.contracts.Gripper``."""

    def __init__(self, _options: HttpGripperOptions, server: Server) -> None:
        self._server = server
        self._capabilities: frozenset[Capability] = frozenset()
        self._range_m = (0.0, 0.0)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The flags of the gripper on the other side; empty before ``connect``."""
        return self._capabilities

    @property
    def width_range_m(self) -> tuple[float, float]:
        """Smallest and largest opening [m]; zeros before ``connect``, and for some grippers before ``activate``."""
        return self._range_m

    def connect(self, deadline_s: float) -> None:
        """Takes over what the server says of its gripper; raises RobotError where it has none or it is silent."""
        facts = self._server.gripper_facts
        if facts is None:
            raise RobotError("the arm's server has no gripper, or the arm is not connected; connect the arm first")
        self._take_range(facts)
        listed = facts.get("capabilities", [])
        self._capabilities = frozenset(Capability(name) for name in listed if name in set(Capability))
        end_s = time.monotonic() + deadline_s
        while True:
            try:
                self.state()
            except RobotError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(POLL_S)
            else:
                return

    def activate(self, deadline_s: float) -> None:
        """Makes it ready; raises RobotError."""
        self._carry_out("/v1/gripper/activate", {}, deadline_s)
        answer, _ = self._server.ask("/v1/capabilities")
        facts = answer.get("gripper")
        if isinstance(facts, dict):  # some know their range only now
            self._take_range(facts)

    def _take_range(self, facts: Json) -> None:
        low, high = numbers(facts, "width_range_m", 2)
        self._range_m = (low, high)

    def move(self, width_m: float, speed_m_s: float, force_n: float, deadline_s: float) -> GripperState:
        """Moves the fingers and returns when they stand; raises RobotError."""
        message = {"width_m": width_m, "speed_m_s": speed_m_s, "force_n": force_n}
        return self._carry_out("/v1/gripper/move", message, deadline_s)

    def state(self) -> GripperState:
        """Returns the newest report; raises RobotError if the gripper is silent or at fault."""
        answer, asked_ns = self._server.ask("/v1/gripper")
        state = read_gripper(answer["state"], asked_ns)
        if state.fault:
            raise RobotError(f"the gripper reports a fault: {state.fault}")
        return state

    def close(self) -> None:
        """Does nothing: the connection is the arm's."""

    def _carry_out(self, path: str, message: Json, deadline_s: float) -> GripperState:
        end_s = time.monotonic() + deadline_s
        asked = self._server.command(path, {**message, "deadline_s": deadline_s})
        while True:
            answer, asked_ns = self._server.ask("/v1/gripper")
            result = answer.get("result")
            if isinstance(result, dict) and result.get("number") == asked:
                ended = read_result(result)
                if ended.outcome is not MotionOutcome.REACHED:
                    raise RobotError(f"the gripper failed: {ended.reason or ended.outcome}")
                return read_gripper(answer["state"], asked_ns)
            if time.monotonic() > end_s + GRACE_S:
                raise RobotError(
                    f"the gripper did not end its motion within {deadline_s:g} s; its fingers stay as they are"
                )
            time.sleep(POLL_S)
