"""Faults of the computer: a real collector and a real server over a simulated cell, and what became of the episodes."""

import contextlib
import dataclasses
import logging
import math
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from qtopt.apps.drills.disks import small_disk
from qtopt.apps.robot.soaked import Roles, delivered, finished, left_behind, unaccounted
from qtopt.errors import QtOptError, RobotError
from qtopt.types import JsonValue, new_episode_uuid
from robot_bridge.cell.places import Places
from robot_bridge.cell_file import load_cell_file
from robot_bridge.spool import Spool
from sim.faults.cases import HostCase
from sim.faults.cells import SimulatedCell, until
from sim.faults.judge import allowed, course, overrun
from sim.faults.lateness import Lateness
from sim.faults.run import STAYS_M
from sim.faults.told import Told

_log = logging.getLogger(__name__)
_SPEED_M_S: Final = 0.2
_EPISODE_S: Final = 240.0
_DOWN_M_S: Final = 0.03
_WAY_DOWN_M: Final = (0.115, 0.155)
"""Below the lowest start of an episode, so that the policy leads down there, and above whatever could be touched."""
_DISK_MB: Final = 2
_ROOM_BYTES: Final = 450_000
_FULL: Final = ("collection waits until there is room", "no episode begins before there is")
"""A finished episode finds no room, or the next one is not begun, whichever comes first."""
_HOUR: Final = 150
"""Episodes of 24 s."""
_STANDS_S: Final = 3.0
_NO_SERVER_S: Final = 120.0
_DELIVERED_S: Final = 600.0


def run(protocol: str, cases: Sequence[HostCase], directory: Path, host: str) -> Iterator[Told]:
    """Yields what came of each case, each with a cell, a server and a collector of its own."""
    for number, case in enumerate(cases):
        room = directory / str(number)
        room.mkdir()
        try:
            yield _run(case, protocol, room, host)
        except (QtOptError, OSError, subprocess.TimeoutExpired) as error:
            _log.exception("%s", case.name)
            yield Told(case.name, protocol, "", "", f"{type(error).__name__}: {error}")


def _run(case: HostCase, protocol: str, room: Path, host: str) -> Told:
    with contextlib.ExitStack() as parts:
        if case.fault == "disk full":
            parts.enter_context(small_disk(room / "spool", _DISK_MB))
        sim = parts.enter_context(SimulatedCell(protocol, room, host, _SPEED_M_S))
        roles = parts.enter_context(Roles(room, sim.path))
        lateness = parts.enter_context(Lateness())
        fault = _Fault(case, sim, roles)
        fault.await_episodes(1)
        {
            "collector signalled": fault.signal_collector,
            "disk full": fault.fill_disk,
            "server away": fault.miss_server,
        }[case.fault]()
        waiting, aside = roles.end(), roles.set_aside()
        told, stored = finished(roles.logs) + fault.put, delivered(roles.store)
    troubles = fault.troubles + unaccounted(told, stored, waiting) + aside + left_behind(str(room), host)
    seen = f"{fault.seen}; {len(told)} episodes told of, each in the store once"
    counts: dict[str, JsonValue] = {"episodes": len(told), "stored": sum(stored.values()), "locks": [*fault.locks]}
    measured = {**fault.measured, **counts}
    return Told(case.name, protocol, "", seen, "; ".join(troubles), 1, lateness.most_s, measured)


class _Fault:
    """What is done in each case, and what was seen of it.

    Attributes:
        put: episodes that were put into the spool by hand.
        seen: in words.
        measured: in numbers.
        locks: rules by which a busy machine locked motion beside the fault, each acknowledged as a person would.
        troubles: what was not as it must be.
    """

    def __init__(self, case: HostCase, sim: SimulatedCell, roles: Roles) -> None:
        self._case, self._sim, self._roles = case, sim, roles
        self._places = Places(load_cell_file(sim.path))
        self.locks: list[str] = []
        self.put: list[str] = []
        self.seen = ""
        self.measured: dict[str, JsonValue] = {}
        self.troubles: list[str] = []

    def await_episodes(self, more: int) -> None:
        """Waits until so many more episodes than now were finished; raises RobotError."""
        wanted = len(finished(self._roles.logs)) + more
        if not self._until(lambda: len(finished(self._roles.logs)) >= wanted, more * _EPISODE_S):
            raise RobotError(f"the collector did not finish {more} episodes in {more * _EPISODE_S:.0f} s")

    def signal_collector(self) -> None:
        """Sends the collector a signal while the policy leads the tool down.

        A frozen one goes on when it may; where it ended, a supervisor starts another.
        """
        sim, places = self._sim, self._places
        if not self._until(self._goes_down, _EPISODE_S, 0.005):
            raise RobotError("the policy did not lead down")
        with Lateness() as lateness:
            before, fault_s = sim.truth(), time.monotonic()
            self._roles.signal_collector(getattr(signal, self._case.signal))
            time.sleep(_STANDS_S)
            seen, after = course(sim.trace(fault_s - 0.1), fault_s), sim.truth()
        speed_m_s = math.hypot(*before["twist"][:3])
        most = allowed(speed_m_s, self._case.within_s, lateness.most_s)
        self.troubles += overrun(seen, most)
        self._demand(abs(after["width_m"] - before["width_m"]) < 0.002, "the fingers moved")
        lock, frozen = places.latched(), self._case.signal == "SIGSTOP"
        if frozen:
            self._demand(lock is None, "motion was locked, and not only held")
            self._roles.signal_collector(signal.SIGCONT)
        else:
            gone = until(lambda: not {"arm", "safety"} & self._roles.processes().keys(), 30.0, 0.1)
            self._demand(gone, "arm or safety process lived on")
            sim.unlock(places)
            self._roles.revive()
        self.await_episodes(1)
        self.seen = (
            f"stood after {seen.stood_s:.2f} s and {1e3 * seen.way_m:.0f} mm at {1e2 * speed_m_s:.0f} cm/s, "
            f"{f'locked by `{lock.rule}`' if lock else 'not locked'}; {'the same' if frozen else 'the next'} collector "
            "went on"
        )
        self.measured = {
            "stood_s": seen.stood_s,
            "way_m": seen.way_m,
            "speed_m_s": speed_m_s,
            "allowed_s": most.stood_s,
        }

    def fill_disk(self) -> None:
        """Leaves room for an episode or two on the spool's disk while the server is away, then brings that back."""
        spool = self._roles.spool
        self._roles.kill_server()
        free = shutil.disk_usage(spool).free
        (spool / "ballast").write_bytes(bytes(max(0, free - _ROOM_BYTES)))
        if not self._until(lambda: any(self._said(each) for each in _FULL), 4 * _EPISODE_S):
            raise RobotError("the disk did not fill up")
        kept, full_s = self._roles.waiting(), time.monotonic()
        self._demand(kept > 0, "no episode waited on the disk")
        time.sleep(_STANDS_S)
        way_m = course(self._sim.trace(full_s), full_s).way_m
        self._demand(way_m <= STAYS_M, f"the arm moved by {1e3 * way_m:.1f} mm while the disk was full")
        self._demand(not [*spool.glob("*.partial")], "half an episode was left on the disk")
        self._roles.revive()
        back_s = time.monotonic()
        self.await_episodes(2)
        self.seen = (
            f"{kept} episodes waited on a disk of {_DISK_MB} MB, the arm standing"
            f"{', one more in memory' if self._said(_FULL[0]) else ''}; the second episode after that ended "
            f"{time.monotonic() - back_s:.0f} s after the server was back"
        )
        self.measured = {"kept": kept, "way_m": way_m}

    def miss_server(self) -> None:
        """Keeps the server away while episodes of an hour gather in the spool."""
        roles = self._roles
        roles.kill_server()
        if not self._until(lambda: roles.waiting() >= 2, 3 * _EPISODE_S):
            raise RobotError("no episodes gathered in the spool")
        code = roles.end_collector()
        collected = roles.waiting()
        self._demand(code == 0, f"the collector ended with {code}, expected 0")
        with contextlib.closing(Spool(roles.spool)) as spool:
            pattern = spool.load(spool.pending()[0])
            self.put = [new_episode_uuid() for _ in range(_HOUR - collected)]
            for uuid in self.put:
                spool.put(dataclasses.replace(pattern, uuid=uuid))
        roles.revive(server=False)
        code = roles.await_collector(_NO_SERVER_S)
        self._demand(code != 0, "a collector without a server ended with 0")
        self._demand(roles.waiting() == _HOUR, f"{roles.waiting()} episodes wait, expected {_HOUR}")
        roles.revive()
        back_s = time.monotonic()
        gone = self._until(lambda: not roles.waiting(), _DELIVERED_S)
        took_s = time.monotonic() - back_s
        self._demand(gone, f"{roles.waiting()} episodes still waited after {took_s:.0f} s")
        self.seen = (
            f"an hour's worth, not an hour: {collected} episodes collected without it and {_HOUR - collected} copies "
            f"waited, all delivered {took_s:.0f} s after it was back; a collector started meanwhile ended with code "
            f"{code}"
        )
        self.measured = {"collected": collected, "waited": _HOUR, "delivered_s": round(took_s, 1), "code": code}

    def _until(self, condition: Callable[[], bool], seconds: float, period_s: float = 0.5) -> bool:
        """Waits for a condition, and acknowledges what is locked meanwhile; returns whether it came about."""
        look_s = 0.0

        def so() -> bool:
            nonlocal look_s
            if time.monotonic() > look_s:
                look_s = time.monotonic() + 0.5
                lock = self._sim.unlock(self._places)
                if lock is not None:
                    self.locks.append(lock.rule)
            return condition()

        return until(so, seconds, period_s)

    def _goes_down(self) -> bool:
        truth = self._sim.truth()
        return bool(truth["twist"][2] < -_DOWN_M_S and _WAY_DOWN_M[0] < truth["tool"][2] < _WAY_DOWN_M[1])

    def _said(self, words: str) -> bool:
        return any(words in log.read_text(errors="replace") for log in self._roles.logs.iterdir())

    def _demand(self, so: object, otherwise: str) -> None:
        if not so:
            self.troubles.append(otherwise)
