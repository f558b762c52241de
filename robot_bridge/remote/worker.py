"""A thread that alone commands a device: one job at a time, the result kept for whoever asks."""

import logging
import queue
import threading
from collections.abc import Callable

from qtopt.errors import RobotError
from robot_bridge.contracts import MotionOutcome, MotionResult
from robot_bridge.remote.messages import Json, write_result

_log = logging.getLogger(__name__)

Job = Callable[[], MotionResult | None]
"""A command; None stands for REACHED. A RobotError becomes FAULT with its text."""


class Busy(RobotError):
    """A command came while another one is carried out."""


class Worker:
    """Runs jobs one by one in its own thread, because drivers want all their commands from the same one.

    Args:
        idle: called between jobs, about every ``period_s``; None for nothing.
        period_s: see ``idle`` [s].
    """

    def __init__(self, name: str, idle: Callable[[], None] | None = None, period_s: float = 0.05) -> None:
        self._idle, self._period_s = idle, period_s
        self._jobs: queue.Queue[tuple[int, Job] | None] = queue.Queue()
        self._done = threading.Condition()
        self._lock = threading.Lock()
        self._number: int | None = None
        self._called_off = False
        self._result: Json | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, number: int, job: Job) -> None:
        """Hands a job over and returns at once; raises Busy while another one runs."""
        with self._lock:
            if self._number is not None:
                raise Busy(f"command {self._number} is still carried out; stop it first, or wait for its result")
            self._number, self._called_off = number, False
        self._jobs.put((number, job))

    def await_result(self, number: int, timeout_s: float) -> Json:
        """Returns the result of a short job that was handed over; raises Busy where it is not done in ``timeout_s``."""
        with self._done:
            if not self._done.wait_for(lambda: self._result_of(number) is not None, timeout_s):
                raise Busy(f"command {number} was not done within {timeout_s:g} s")
        return self._result_of(number) or {}

    def call_off(self) -> None:
        """Lets a job that waits or runs end as soon as it can; ``called_off`` says so until it has."""
        with self._lock:
            self._called_off = self._number is not None

    def settle(self, timeout_s: float) -> bool:
        """Waits until no job waits or runs; returns whether that came about in ``timeout_s``."""
        with self._done:
            return self._done.wait_for(lambda: not self.busy, timeout_s)

    def forget(self) -> None:
        """Has no result any more: numbers begin anew in a new session, where an old result would pass for its own."""
        with self._lock:
            self._result = None

    @property
    def busy(self) -> bool:
        """Whether a job waits or runs."""
        return self._number is not None

    @property
    def called_off(self) -> bool:
        """Whether a job that is to end has not yet done so; a stop sent too early for it must then be sent again."""
        with self._lock:
            return self._called_off and self._number is not None

    def result(self) -> Json | None:
        """Returns the newest result with its command's number; None before the first."""
        with self._lock:
            return self._result

    def close(self, timeout_s: float) -> None:
        """Ends the thread after the job in hand; waits ``timeout_s`` at most."""
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _result_of(self, number: int) -> Json | None:
        result = self.result()
        return result if result is not None and result["number"] == number else None

    def _run(self) -> None:
        while True:
            try:
                item = self._jobs.get(timeout=self._period_s)
            except queue.Empty:
                if self._idle is not None:
                    self._idle()
                continue
            if item is None:
                return
            number, job = item
            result = {"number": number, **self._carry_out(job)}
            with self._done, self._lock:
                self._result, self._number = result, None
                self._done.notify_all()

    def _carry_out(self, job: Job) -> Json:
        if self.called_off:
            return write_result(MotionResult(MotionOutcome.STOPPED, "stopped before it began"))
        try:
            return write_result(job() or MotionResult(MotionOutcome.REACHED))
        except RobotError as error:
            return write_result(MotionResult(MotionOutcome.FAULT, str(error)))
        except Exception as error:  # a driver's surprise must reach the client, not kill the only thread
            _log.exception("a command failed")
            return write_result(MotionResult(MotionOutcome.FAULT, f"{type(error).__name__}: {error}"))
