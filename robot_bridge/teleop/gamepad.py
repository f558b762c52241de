"""A gamepad through Linux's joystick interface, ``/dev/input/js0``: events of eight bytes, no library.

Nothing moves unless the deadman button is held *now*. It has to be pressed while we look: one that was down when the
device was opened does not count, since the kernel cannot say for how long.
"""

import errno
import os
import select
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qtopt.config import STRICT
from qtopt.errors import ConfigError, RobotError
from robot_bridge.teleop.device import Command

EVENT: Final = struct.Struct("<IhBB")
"""struct js_event of linux/joystick.h: time [ms], value, type, number."""
BUTTON, AXIS, INITIAL = 0x01, 0x02, 0x80
_FULL: Final = 32767
_READ_BYTES: Final = 64 * EVENT.size


@dataclass(frozen=True)
class GamepadMap:
    """Numbers of axes and buttons; the defaults are those of an Xbox pad under Linux.

    Attributes:
        forward_axis: pushed away from the person moves along +x; the axis says -1 there.
        left_axis: pushed left moves along +y.
        up_axis: pushed away moves up.
        turn_axis: pushed left turns counter-clockwise.
        deadman: without it everything is a hold.
        takeover: held while the person wants the controls.
        close: closes the fingers.
        open: opens the fingers.
        terminate: ends the episode.
        dead_zone: share of an axis's way that counts as its middle.
    """

    __pydantic_config__ = STRICT

    forward_axis: int = 1
    left_axis: int = 0
    up_axis: int = 4
    turn_axis: int = 3
    deadman: int = 4
    takeover: int = 5
    close: int = 0
    open: int = 1
    terminate: int = 7
    dead_zone: float = 0.15

    def __post_init__(self) -> None:
        buttons = (self.deadman, self.takeover, self.close, self.open, self.terminate)
        if len(set(buttons)) != len(buttons):
            raise ConfigError(f"gamepad: buttons {buttons} are used twice, expected five different ones")
        if not 0.0 <= self.dead_zone < 1.0:
            raise ConfigError(f"gamepad dead_zone is {self.dead_zone}, expected from 0 to below 1")


class Gamepad:
    """Reads a joystick device; satisfies ``Device``.

    Args:
        path: of the device, or of anything else that delivers its events.
        mapping: which axis and button is what.

    Raises:
        RobotError: it cannot be opened.
    """

    def __init__(self, path: Path = Path("/dev/input/js0"), mapping: GamepadMap | None = None) -> None:
        self._path, self._map = path, mapping if mapping is not None else GamepadMap()
        self._axes: dict[int, float] = {}
        self._down: set[int] = set()
        self._pressed: set[int] = set()
        self._rest = b""
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise RobotError(
                f"gamepad {path}: cannot be opened: {error}; plug it in, or give the right /dev/input/js*, and let "
                "this user read it (group input)"
            ) from error

    def read(self, wait_s: float) -> Command:
        """Returns what the person wants now; see ``Device.read``."""
        self._drain()
        self._pressed.clear()  # pressed while nobody read
        deadline = time.monotonic() + wait_s
        had_controls = self._map.takeover in self._down
        while (command := self._command()).holds and command.takeover == had_controls:
            if (left_s := deadline - time.monotonic()) <= 0:
                break
            select.select([self._file], [], [], left_s)
            self._drain()
        return command

    def close(self) -> None:
        """Closes the device; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _drain(self) -> None:
        while True:
            try:
                data = os.read(self._file, _READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                raise self._gone(errno.errorcode.get(error.errno or 0, str(error))) from error
            if not data:
                raise self._gone("end of file")
            self._rest += data
            whole = len(self._rest) - len(self._rest) % EVENT.size
            for _, value, kind, number in EVENT.iter_unpack(self._rest[:whole]):
                self._take(value, kind, number)
            self._rest = self._rest[whole:]

    def _gone(self, reason: str) -> RobotError:
        self._axes, self._down, self._pressed = {}, set(), set()
        return RobotError(f"gamepad {self._path}: it is gone ({reason}); plug it in and start again")

    def _take(self, value: int, kind: int, number: int) -> None:
        if kind & ~INITIAL == AXIS:
            self._axes[number] = max(-1.0, min(1.0, value / _FULL))
        elif kind == BUTTON and value:
            self._down.add(number)
            if self._map.deadman in self._down:
                self._pressed.add(number)
        elif kind == BUTTON:
            self._down.discard(number)

    def _axis(self, number: int) -> float:
        value, zone = self._axes.get(number, 0.0), self._map.dead_zone
        beyond = max(0.0, abs(value) - zone) / (1.0 - zone)
        return beyond if value > 0 else -beyond if beyond else 0.0

    def _command(self) -> Command:
        pad, takeover = self._map, self._map.takeover in self._down
        if pad.deadman not in self._down:
            self._pressed.clear()
            return Command(takeover=takeover)
        return Command(
            forward=-self._axis(pad.forward_axis),
            left=-self._axis(pad.left_axis),
            up=-self._axis(pad.up_axis),
            turn=-self._axis(pad.turn_axis),
            close=pad.close in self._pressed,
            open_=pad.open in self._pressed,
            terminate=pad.terminate in self._pressed,
            takeover=takeover,
        )
