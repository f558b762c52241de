"""The gripper as the arm's process has it: its newest report, and its motions aside, one at a time."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.cell.ask import Ask
from robot_bridge.contracts import Gripper, GripperState, Reaction, Verdict
from robot_bridge.safety.facts import is_at_least
from robot_bridge.safety.rules import PRESSED

_EVERY_S: Final = 0.05
_SILENT_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.2
_OVERDUE_S, _HANGS = 1.5, "the gripper's library does not come back from a motion, whose time is long over"


class Fingers:
    """Watches a gripper and moves its fingers; a library that hangs keeps nobody waiting.

    Args:
        gripper: connected here; None for an arm without one.
        barred: returns why nothing may move now; None where it may.

    Attributes:
        state: the newest report; None before the first.
    """

    def __init__(self, gripper: Gripper | None, barred: Callable[[], Verdict | None]) -> None:
        self._gripper, self._barred = gripper, barred
        self._using = threading.Lock()
        self._ending = threading.Event()
        self._aside = ThreadPoolExecutor(1, "fingers")
        self._thread = threading.Thread(target=self._watch, name="gripper", daemon=True)
        self._fault = ""
        self._heard_s = 0.0
        self._moves = False
        self.state: GripperState | None = None

    @property
    def fault(self) -> str:
        """What is wrong, empty for nothing; a silence is, for the width of before would be taken for today's."""
        if self._fault or self._moves or not self._thread.is_alive():
            return self._fault
        silent_s = time.monotonic() - self._heard_s
        return f"no report of the gripper for {silent_s:.1f} s" if silent_s > _SILENT_S else ""

    @property
    def width_range_m(self) -> tuple[float, float]:
        """Smallest and largest opening [m]; some grippers know theirs only once they were made ready."""
        return (0.0, 0.0) if self._gripper is None else self._gripper.width_range_m

    def connect(self, deadline_s: float) -> None:
        """Connects, without motion; raises what the gripper's library raises."""
        if self._gripper is not None:
            self._gripper.connect(deadline_s)
            self.state = self._gripper.state()

    def start(self) -> None:
        """Begins to watch."""
        self._heard_s = time.monotonic()
        if self._gripper is not None:
            self._thread.start()

    def end(self, wait_s: float) -> None:
        """Ends the watch; a motion that does not come back is left alone."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)
        self._aside.shutdown(wait=False)

    def send(self, ask: Ask, width_m: float | None) -> Future[GripperState]:
        """Has the fingers go to an opening [m], or the gripper made ready for None; gives where they ended.

        What is given raises RobotError where the fingers may not set off, or did not get there.
        """
        return self._aside.submit(self._move, ask, width_m)

    def require_in_time(self, ask: Ask, moving: Future[GripperState], began_s: float) -> None:
        """Raises RobotError where a motion of the fingers is long over its time: it may never come back."""
        if time.monotonic() < began_s + ask.message["deadline_s"] + _OVERDUE_S:
            return
        if wait([moving], _LOOK_AGAIN_S).done:  # it ended while this process was frozen
            return
        self._fault = _HANGS  # until it comes back, and reports again
        ask.told = ask.told or Verdict(Reaction.STOP, "gripper", _HANGS)  # or what waits to begin would begin then
        moving.cancel()
        raise RobotError(_HANGS)

    def _move(self, ask: Ask, width_m: float | None) -> GripperState:
        if self._gripper is None:
            raise RobotError("this cell has no gripper")
        message = ask.message
        with self._using:
            # It may have come while the gripper was asked something else.
            barred = self._barred() or ask.told or (ask.ended_by if _forbids(ask.ended_by) else None)
            if barred is not None:
                raise RobotError(f"the fingers were not moved: {barred.rule}: {barred.reason}")
            self._moves = True
            try:
                if width_m is None:
                    self._gripper.activate(message["deadline_s"])
                    self.state = self._gripper.state()
                else:
                    self.state = self._gripper.move(width_m, message["speed"], message["force"], message["deadline_s"])
            finally:
                self._heard_s, self._moves = time.monotonic(), False
        return self.state

    def _watch(self) -> None:
        """Keeps the newest report; a moving gripper is left to the motion that moves it."""
        while not self._ending.wait(_EVERY_S):
            if self._gripper is None or not self._using.acquire(timeout=0.01):
                continue
            try:
                self.state, self._fault = self._gripper.state(), ""
                self._heard_s = max(self._heard_s, self.state.t_host_ns / 1e9)
            except Exception as error:  # a vendor's library may raise anything; unheard, its reports would stay
                self._fault = f"{type(error).__name__}: {error}"
            finally:
                self._using.release()


def _forbids(ended_by: Verdict | None) -> bool:
    """Whether fingers may not set off under what ended the motion that they belong to; out of a press they may."""
    return is_at_least(ended_by, Reaction.STOP) and ended_by is not None and ended_by.rule != PRESSED
