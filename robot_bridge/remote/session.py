"""Who commands the arm, and which of their commands are new.

One client at a time holds the session. Every command carries the session's secret name and a number greater than all
before, so that a command that was recorded, repeated or overtaken is refused. A session whose client falls silent ends;
it is never revived: nothing that is still under way on the network can move the arm afterwards.
"""

import secrets
import threading
from collections.abc import Callable

from qtopt.errors import RobotError


class SessionRefused(RobotError):
    """A command that does not come next in the session that holds the arm."""


class Session:
    """The one session of a server.

    Args:
        silence_s: a client that sends nothing for so long [s] loses the session.
        clock_s: monotonic time [s].
    """

    def __init__(self, silence_s: float, clock_s: Callable[[], float]) -> None:
        self._silence_s, self._clock_s = silence_s, clock_s
        self._lock = threading.Condition()
        self._name = ""
        self._ending = False
        self._last = self._last_beat = 0
        self._heard_s = 0.0

    @property
    def held(self) -> bool:
        """Whether a client holds the arm."""
        return bool(self._name)

    def claim(self, wait_s: float = 0.0) -> str:
        """Begins a session and returns its name, once the one before has been freed, within ``wait_s`` at most.

        Raises:
            SessionRefused: another session lives, or is still being ended.
        """
        with self._lock:
            if not self._lock.wait_for(lambda: not self._ending, wait_s):
                raise SessionRefused("the motion of the client before is still being stopped; try again")
            if self._name:
                raise SessionRefused(
                    f"another client holds the arm; it was heard {self._clock_s() - self._heard_s:.2f} s ago. "
                    f"Close it, or wait until it has been silent for {self._silence_s:g} s"
                )
            self._name, self._last, self._last_beat = secrets.token_hex(16), 0, 0
            self._heard_s = self._clock_s()
            return self._name

    def admit(self, name: str, number: int) -> None:
        """Takes note of a command; raises SessionRefused unless it is new and of the living session."""
        with self._lock:
            self._check(name)
            if number <= self._last:
                raise SessionRefused(f"command {number} came after command {self._last}: replayed or out of order")
            self._last, self._heard_s = number, self._clock_s()

    def admit_stop(self, name: str, number: int) -> None:
        """Takes note of a stop: commands up to ``number`` that are still on their way come too late. Never refuses."""
        with self._lock:
            if self._is_ours(name):
                self._last = max(self._last, number)

    def beat(self, name: str, number: int) -> None:
        """Takes note of a sign of life; they have numbers of their own. Raises SessionRefused like ``admit``."""
        with self._lock:
            self._check(name)
            if number <= self._last_beat:
                raise SessionRefused(f"heartbeat {number} came after {self._last_beat}: replayed or out of order")
            self._last_beat, self._heard_s = number, self._clock_s()

    def release(self, name: str) -> None:
        """Ends the session in its client's name, but for ``free``; raises SessionRefused for another's."""
        with self._lock:
            self._check(name)
            self._name, self._ending = "", True

    def expire(self) -> bool:
        """Ends the session, but for ``free``, if its client was silent too long; returns whether it did so now."""
        with self._lock:
            silent = bool(self._name) and self._clock_s() - self._heard_s > self._silence_s
            if silent:
                self._name, self._ending = "", True
            return silent

    def free(self) -> None:
        """Lets the next client in: what the last one had begun was stopped, and no stop for it is still to come."""
        with self._lock:
            self._ending = False
            self._lock.notify_all()

    def _is_ours(self, name: str) -> bool:
        return bool(self._name) and secrets.compare_digest(name.encode(), self._name.encode())

    def _check(self, name: str) -> None:
        if not self._is_ours(name):
            raise SessionRefused(
                "this session has ended or never was: its client was silent too long, or the server began anew. "
                "Nothing goes on by itself; connect again"
            )
