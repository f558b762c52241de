"""What its collector knows of a cell's locks: those on the disk, and those that the disk has not taken yet.

A lock that could not be written is no less a lock. Whoever told of it, motion is free again only when it has been
written after all and then acknowledged, or when the disk and the log of acknowledgements show that both have happened.
"""

import time

from qtopt.errors import RobotError
from robot_bridge.cell.places import Places
from robot_bridge.contracts import Latch
from robot_bridge.safety.latch_file import UNREADABLE


class Locks:
    """Remembers what locked motion for as long as the collector lives.

    Args:
        places: where the cell keeps its state.
    """

    def __init__(self, places: Places) -> None:
        self._file, self._places = places.latch_file, places
        self._own: Latch | None = None
        self._seen: int | None = None  # of the log, before anything locked; None: unknown, nothing there counts

    def begin(self, seen: int) -> None:
        """New processes run: what locks motion from here on was not acknowledged yet.

        Args:
            seen: ``LatchFile.acknowledgements`` before they were started.
        """
        self._own, self._seen = None, seen

    def lock(self, rule: str, reason: str) -> None:
        """Locks motion in the collector's own name, whatever the disk says."""
        self._own, self._seen = Latch(rule, reason, time.time()), self._look()
        self._places.latch(rule, reason)

    def pending(self, told: Latch | None) -> Latch | None:
        """Returns what locks motion and was not acknowledged yet, None where nothing does.

        Args:
            told: what a process of the cell said that it had locked.
        """
        latch, told = self._file.read(), self._own or told
        if told is None or self._acknowledged():
            return latch
        return told if latch is None or latch.rule == UNREADABLE else latch

    def keep(self, latch: Latch) -> str:
        """Writes a lock that the disk does not have; returns why that failed, empty where it has it.

        A latch that cannot be read was told by nobody, and is not written: it may be none.
        """
        seen = self._look()
        if latch.rule == UNREADABLE or self._file.is_kept() or self._acknowledged():
            return ""
        try:
            self._file.write(latch)
        except RobotError as error:
            if not self._file.is_kept():
                return str(error)
        self._seen = seen
        return ""

    def _acknowledged(self) -> bool:
        now = self._look()
        return now is not None and self._seen is not None and now > self._seen

    def _look(self) -> int | None:
        try:
            return self._file.acknowledgements()
        except RobotError:
            return None
