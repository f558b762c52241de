"""The keyboard of a terminal: one key, one step. Nothing is installed, and the terminal is left as it was found.

A terminal tells of keys pressed, never of keys let go. So a key is good for one step and no more, and taking over is
switched on and off with a key of its own.
"""

import atexit
import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from dataclasses import replace
from types import FrameType
from typing import Any, Final

from qtopt.errors import RobotError
from robot_bridge.teleop.device import HOLD, Command

KEYS: Final = {
    "w": Command(forward=1.0),
    "s": Command(forward=-1.0),
    "a": Command(left=1.0),
    "d": Command(left=-1.0),
    "r": Command(up=1.0),
    "f": Command(up=-1.0),
    "q": Command(turn=1.0),
    "e": Command(turn=-1.0),
    "c": Command(close=True),
    "o": Command(open_=True),
    "\r": Command(terminate=True),
    "\n": Command(terminate=True),
}
"""What each key asks for; capital letters ask for a quarter of it."""
TAKEOVER_KEY: Final = "t"
HELP: Final = (
    "w/s forward/back, a/d left/right, r/f up/down, q/e turn, c close, o open, Enter ends, t takes over or gives back; "
    "with Shift a quarter of a step"
)
_FINE: Final = 0.25
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Keyboard:
    """Reads keys from a terminal; satisfies ``Device``.

    Args:
        file: descriptor of the terminal; standard input by default.
        share: of the largest step that a key asks for.

    Raises:
        RobotError: that is no terminal.
    """

    def __init__(self, file: int | None = None, *, share: float = 0.5) -> None:
        self._file = sys.stdin.fileno() if file is None else file
        self._share, self._has_controls, self._closed = share, False, False
        self._handlers: dict[int, Any] = {}
        if not os.isatty(self._file):
            raise RobotError("keyboard: the standard input is no terminal; start the command in one, or use a gamepad")
        self._found = termios.tcgetattr(self._file)
        atexit.register(self.close)
        self._catch_signals()
        tty.setcbreak(self._file)  # keys at once and unseen; Ctrl-C stays what it is

    def __enter__(self) -> "Keyboard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, wait_s: float) -> Command:
        """Returns what the first new key asks for; see ``Device.read``.

        Keys typed ahead are dropped, but for the one that takes over or gives back.
        """
        for key in self._keys(0.0):
            self._switch(key)
        deadline = time.monotonic() + wait_s
        command = HOLD
        had_controls = self._has_controls
        while command.holds and had_controls == self._has_controls and (left_s := deadline - time.monotonic()) > 0:
            for key in self._keys(left_s):
                taken = self._switch(key)
                command = command if taken or not command.holds else self._asked(key)
        return replace(command, takeover=self._has_controls)

    def close(self) -> None:
        """Restores the terminal; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(termios.error, OSError):  # the terminal may be gone
            termios.tcsetattr(self._file, termios.TCSANOW, self._found)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        atexit.unregister(self.close)

    def _keys(self, wait_s: float) -> str:
        """Returns the keys that were pressed, waiting for the first."""
        ready, _, _ = select.select([self._file], [], [], wait_s)
        if not ready:
            return ""
        try:
            data = os.read(self._file, 1024)
        except OSError as error:
            raise RobotError(f"keyboard: the terminal is gone: {error}; start again in another one") from error
        if not data:
            raise RobotError("keyboard: the terminal is gone (end of file); start again in another one")
        return data.decode("ascii", "ignore")

    def _switch(self, key: str) -> bool:
        if key.lower() != TAKEOVER_KEY:
            return False
        self._has_controls = not self._has_controls
        return True

    def _asked(self, key: str) -> Command:
        wanted, share = KEYS.get(key.lower(), HOLD), self._share * (_FINE if key.isupper() else 1.0)
        scaled = {name: getattr(wanted, name) * share for name in ("forward", "left", "up", "turn")}
        return replace(wanted, **scaled)

    def _catch_signals(self) -> None:
        """Restores the terminal before a signal ends the process; a program's own handlers are left alone."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                self._handlers[number] = signal.signal(number, self._end)

    def _end(self, number: int, _: FrameType | None) -> None:
        self.close()
        os.kill(os.getpid(), number)
