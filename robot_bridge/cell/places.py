"""Where a cell keeps what outlives its processes: the latch, who runs it, and the lock that lets only one do so."""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from qtopt.errors import ConfigError, RobotError
from robot_bridge.cell_file import CellFile, Table
from robot_bridge.contracts import Latch
from robot_bridge.safety.latch_file import CLEARED, ClearedStops, Commissioning, LatchFile
from robot_bridge.safety.limits import RecoveryLimits
from robot_bridge.safety.region import Point

_log = logging.getLogger(__name__)
STATE_VARIABLE = "QTOPT_CELLS"
"""Names the directory of all cells' states; by default ``~/.local/state/qtopt/cells``."""
NOWHERE: Final[Point] = (math.inf, math.inf, math.inf)
_ADDRESSES: Final = ("host", "url", "device", "port")
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Running:
    """The processes of a running cell, for ``status`` and ``estop``: process ids, and the board's descriptor."""

    collector: int
    arm: int
    safety: int
    board_fd: int


class Places:
    """The files of one cell's state.

    Args:
        cell: what the cell file says.
    """

    def __init__(self, cell: CellFile) -> None:
        chosen = os.environ.get(STATE_VARIABLE)
        self.root = Path(chosen) if chosen else Path.home() / ".local/state/qtopt/cells"
        self.directory = self.root / cell.cell
        self._locks = {"arm": self.root / f"{_device_name(cell.arm)}.lock", "cell's name": self.directory / "lock"}
        if any(cell.gripper.options.get(key) for key in _ADDRESSES):  # others are reached through the arm
            self._locks["gripper"] = self.root / f"gripper-{_device_name(cell.gripper)}.lock"
        arm = self.root / _device_name(cell.arm)
        try:
            # An arm stays locked also where another file, or another name, tells of it.
            self.latch_file = LatchFile(arm)
            self.cleared = ClearedStops(arm)
            self._commissioning = Commissioning(self.directory, cell.config_hash)
        except OSError as error:
            raise ConfigError(
                f"{self.directory}: cannot be used: {error}; set {STATE_VARIABLE} to a directory that can be written"
            ) from error

    def latched(self) -> Latch | None:
        """Returns what locks motion, None where nothing does."""
        return self.latch_file.read()

    def latch(self, rule: str, reason: str) -> None:
        """Locks motion until a person acknowledges; the first reason stays.

        Where the disk refuses, that is logged, and ``latch_file.is_kept`` stays false: who runs the cell then has to
        keep the lock, as ``Locks`` does.
        """
        try:
            self.latch_file.write(Latch(rule, reason, time.time()))
        except RobotError as error:
            _log.error("%s", error)

    def latch_aside(self, rule: str, reason: str) -> threading.Thread:
        """Does so in a thread, to be joined before the process ends: a disk may take longer than an arm may."""
        thread = threading.Thread(target=self.latch, args=(rule, reason), daemon=True)
        thread.start()
        return thread

    def stops(self, now_ns: int) -> list[tuple[int, Point]]:
        """Returns when [ns, monotonic] and where [m] stops were cleared without a person within the last hour.

        A damaged file stands for as many as may be, so that the next one waits for a person.
        """
        ages = self.cleared.ages()
        if ages is None:
            _log.warning("%s is damaged: for an hour every protective stop waits for a person", CLEARED)
            return [(now_ns, NOWHERE)] * RecoveryLimits.per_hour
        return [(now_ns - round(age_s * 1e9), place_m) for age_s, place_m in ages]

    def episodes_done(self) -> int:
        """Returns how many episodes ended well since the cell file last changed."""
        return self._commissioning.episodes()

    def finish_episode(self) -> None:
        """Counts one more."""
        self._commissioning.store(self.episodes_done() + 1)

    @contextlib.contextmanager
    def sole_client(self) -> Iterator[None]:
        """Lets nobody else on this machine use the arm, its gripper or the cell's name; ConfigError where one does."""
        with contextlib.ExitStack() as held:
            for what, path in self._locks.items():
                held.enter_context(_locked(what, path))
            yield

    def say_running(self, running: Running | None) -> None:
        """Notes the processes of the running cell, None: it runs no longer.

        Raises:
            RobotError: they could not be noted, and ``estop`` would not find them.
        """
        path = self.directory / "running.json"
        if running is None:
            with contextlib.suppress(OSError):  # a note of processes that are gone is not believed
                path.unlink(missing_ok=True)
            return
        writing = path.with_suffix(".writing")
        try:
            writing.write_text(json.dumps({"boot": _boot(), **asdict(running)}))
            writing.replace(path)
        except OSError as error:
            raise RobotError(f"{path} cannot be written: {error}; estop would not find the cell's processes") from error

    def running(self) -> Running | None:
        """Returns the processes noted last, None where there are none, or the note's collector or its boot is gone."""
        try:
            values: dict[str, Any] = json.loads((self.directory / "running.json").read_text())
            if values.pop("boot") != _boot():
                return None
            running = Running(**values)
            with contextlib.suppress(PermissionError):  # another account's, and alive
                os.kill(running.collector, 0)
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return None
        return running


@contextlib.contextmanager
def _locked(what: str, path: Path) -> Iterator[None]:
    """Holds a lock that ends with this process; raises ConfigError where somebody else has it."""
    try:
        file = path.open("a+")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be used: {error}; set {STATE_VARIABLE} to a directory that can be written"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise ConfigError(
                f"the {what} is in use by process {file.read().strip() or 'unknown'}; it has one client: end that one "
                "first, or correct the cell file"
            ) from error
        with contextlib.suppress(OSError):  # the lock holds without its owner's number, too
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), str(os.getpid()).encode())
        yield


def _boot() -> str:
    """Returns what tells this start of the computer from every other: process ids begin anew with each."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _device_name(device: Table) -> str:
    """Returns where a device is reached, whatever else its options say: a change of those frees no lock."""
    options = device.options
    address = next((str(options[key]) for key in _ADDRESSES if options.get(key)), "")
    with contextlib.suppress(ValueError):  # no URL at all names itself; its driver says what is wrong with it
        parts = urlsplit(address)
        if parts.port is not None and parts.port == _PORTS.get(parts.scheme):
            address = parts._replace(netloc=parts.netloc.rpartition(":")[0]).geturl()
    place = address.rstrip("/").lower() or json.dumps(dict(options), sort_keys=True, default=str)
    readable = re.sub(r"[^a-zA-Z0-9.-]+", "-", place)[:40]
    return f"{device.driver}-{readable}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
