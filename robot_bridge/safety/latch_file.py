"""Locks and counters that outlive the process: a file each, written so that no moment of death leaves motion free.

A latch that cannot be read is a latch. Acknowledging writes who, why and when to a log first and unlocks afterwards.
"""

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qtopt.durable import flush, make_directory
from qtopt.errors import RobotError
from robot_bridge.contracts import Latch
from robot_bridge.safety.region import Point

LATCH = "latch.json"
UNREADABLE = "latch_file"
"""The rule of a latch that does not say why, or that nobody can read."""
LOG = "acknowledgements.jsonl"
COMMISSIONING = "commissioning.json"
CLEARED = "cleared_stops.json"
GUARD = "latch.guard"
_GUARDED_S, _LOOK_S = 1.0, 0.005
_HOUR_S = 3600.0
_SAME_M = 0.005


class LatchFile:
    """The latch of an arm on disk.

    Args:
        directory: of the arm's state; made where it is missing.

    Attributes:
        directory: the same.
    """

    def __init__(self, directory: Path) -> None:
        make_directory(directory)
        self.directory, self._path = directory, directory / LATCH

    def obstacle(self) -> str:
        """Makes and removes a file beside the latch; returns why no lock could be written, empty where one could."""
        trial = self.directory / f"{LATCH}.{os.getpid()}.trial"
        try:
            trial.touch()
            trial.unlink()
        except OSError as error:
            return f"{self.directory}: a lock of the arm could not be written: {error}; nothing moves before it could"
        return ""

    def is_kept(self) -> bool:
        """Whether the disk has a latch, one that does not say why included; not where that cannot be seen."""
        return os.path.lexists(self._path)

    def acknowledgements(self) -> int:
        """Returns the length of the log of acknowledgements [bytes], which each makes longer.

        Raises:
            RobotError: the log is there, but cannot be looked at.
        """
        path = self.directory / LOG
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise RobotError(f"{path} cannot be read: {error}") from error

    def read(self) -> Latch | None:
        """Returns what locks motion; a damaged file does, too."""
        try:
            values = json.loads(self._path.read_text())
            return Latch(str(values["rule"]), str(values["reason"]), float(values["time_s"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Latch(UNREADABLE, f"{self._path} is there, but does not say why: {error!r}", time.time())

    def stamp(self) -> int:
        """Returns when motion was locked last [ns], an older reason or not; 0 where it is not."""
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0

    def write(self, latch: Latch) -> None:
        """Locks motion for this and every later process; an older reason stays, and ``stamp`` is new.

        Raises:
            RobotError: the reason could not be stored; motion is locked where the disk let a file be made at all.
        """
        try:
            with self._alone():
                try:
                    self._write(latch)
                except FileNotFoundError:  # unlocked in between, by one that held the guard for longer than is waited
                    self._write(latch)
        except OSError as error:
            raise RobotError(f"the latch ({latch.rule}: {latch.reason}) could not be stored: {error}") from error

    def _write(self, latch: Latch) -> None:
        try:
            # An empty file locks as well and fits onto a full disk.
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            flush(self.directory)
        except FileExistsError:
            now_ns = time.time_ns()
            try:
                os.utime(self._path, ns=(now_ns, now_ns))
            except PermissionError:  # another account's
                older = self.read() or latch
                write_durably(self._path, _text(latch if older.rule == UNREADABLE else older))
        if self._path.stat().st_size == 0:
            write_durably(self._path, _text(latch))

    def acknowledge(self, operator: str, reason: str, stamp: int | None = None) -> None:
        """Unlocks motion in a person's name and writes that down; the living monitor must have agreed before.

        Args:
            operator: that person.
            reason: what was found and done.
            stamp: of the lock that was looked at; None for whatever there is.

        Raises:
            RobotError: nobody's name or no reason is given, somebody locked motion since ``stamp`` or meanwhile, or
                the disk refused; motion then stays locked.
        """
        if not operator.strip() or not reason.strip():
            raise RobotError("an acknowledgement needs the operator's name and a reason")
        latch = self.read()
        if latch is None:
            return
        entry = {
            "operator": operator,
            "reason": reason,
            "time_s": time.time(),
            "latch": {"rule": latch.rule, "reason": latch.reason, "time_s": latch.time_s},
        }
        try:
            with self._alone() as trouble:
                if trouble:
                    raise RobotError(f"{self.directory / GUARD} {trouble}; try again")
                seen = self.stamp() if stamp is None else stamp
                self._require_same(seen)
                with (self.directory / LOG).open("a") as file:
                    file.write(json.dumps(entry) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                self._require_same(seen)  # a slow disk kept us for longer than whoever locks waits for the guard
                self._path.unlink()
                flush(self.directory)
        except OSError as error:
            raise RobotError(f"the acknowledgement could not be stored, motion stays locked: {error}") from error

    def _require_same(self, stamp: int) -> None:
        if stamp != self.stamp():
            raise RobotError("somebody locked motion again while the arm was looked at; look once more")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[str]:
        """One at a time locks or unlocks; gives why that is not so, for at most a second is waited for the others.

        Who holds that up, frozen say, keeps no lock from being made.
        """
        with contextlib.ExitStack() as parts:
            trouble = "is held: somebody locks or unlocks now"
            try:
                guard = self._open_guard()
                parts.callback(os.close, guard)
                end_s = time.monotonic() + _GUARDED_S
                while not (taken := _taken(guard)) and time.monotonic() < end_s:
                    time.sleep(_LOOK_S)
                trouble = "" if taken else trouble
            except OSError as error:
                trouble = f"cannot be had: {error}"
            yield trouble

    def _open_guard(self) -> int:
        path = self.directory / GUARD
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # a network's disk locks only what could be written
        except PermissionError:
            return os.open(path, os.O_RDONLY)  # another account's


def _text(latch: Latch) -> str:
    return json.dumps({"rule": latch.rule, "reason": latch.reason, "time_s": latch.time_s})


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Commissioning:
    """How many episodes a cell has finished since its configuration last changed.

    Args:
        directory: of the cell's state; made where it is missing.
        config_hash: of the present configuration.
    """

    def __init__(self, directory: Path, config_hash: str) -> None:
        make_directory(directory)
        self._path, self._hash = directory / COMMISSIONING, config_hash

    def episodes(self) -> int:
        """Returns the number; 0 under another configuration and where the file is missing or damaged."""
        try:
            values = json.loads(self._path.read_text())
            return max(0, int(values["episodes"])) if values["config_hash"] == self._hash else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def store(self, episodes: int) -> None:
        """Stores the number; raises RobotError where the disk refuses."""
        try:
            write_durably(self._path, json.dumps({"config_hash": self._hash, "episodes": episodes}))
        except OSError as error:
            raise RobotError(f"{self._path} cannot be written: {error}") from error


class ClearedStops:
    """Where protective stops were cleared without a person within the last hour, whatever processes did it.

    Args:
        directory: of the arm's state; made where it is missing.
    """

    def __init__(self, directory: Path) -> None:
        make_directory(directory)
        self._path = directory / CLEARED

    def ages(self) -> list[tuple[float, Point]] | None:
        """Returns for each how long ago it was [s] and where the tool stood [m]; None where the file is damaged."""
        now_s = time.time()
        try:
            stops = [(now_s - float(time_s), (float(x), float(y), float(z))) for time_s, (x, y, z) in self._read()]
        except (OSError, ValueError, TypeError):
            return None
        return [(max(0.0, age_s), place_m) for age_s, place_m in stops if age_s < _HOUR_S]

    def add(self, place_m: Point) -> None:
        """Notes one more, before it is cleared; raises RobotError where the disk refuses: then it must not be.

        One that is tried again, because the controller did not clear it, is noted once.
        """
        now_s = time.time()
        stops = [] if (known := self.ages()) is None else [(now_s - age_s, where) for age_s, where in known]
        if stops and math.dist(stops[-1][1], place_m) < _SAME_M:
            return  # a second stop so near to another waits for a person, whatever is noted
        try:
            write_durably(self._path, json.dumps([*stops, (now_s, place_m)]))
        except OSError as error:
            raise RobotError(f"{self._path} cannot be written: {error}; the stop waits for a person") from error

    def _read(self) -> list[Any]:
        try:
            return list(json.loads(self._path.read_text()))
        except FileNotFoundError:
            return []


def write_durably(path: Path, text: str) -> None:
    """Puts ``text`` into a file such that after any crash it holds either the old text or the new.

    Several processes may do so at once: each writes aside under a name of its own.
    """
    writing = path.with_name(f"{path.name}.{os.getpid()}.writing")
    with writing.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    writing.replace(path)
    flush(path.parent)
