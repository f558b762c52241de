"""A file of lines that a thread of its own writes: a disk that hangs holds up the lines, and nobody who writes them."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

FILE_BYTES: Final = 16 << 20
"""A file of this size is put aside."""
FILES: Final = 8
"""Files put aside that are kept."""
MOST_WAITING: Final = 4096
"""Lines that wait for the disk; further ones are lost, and counted."""
CLOSES_WITHIN_S: Final = 10.0
"""For so long an end waits for the disk."""


class _PrivateFile(RotatingFileHandler):
    """A rotating log that only its owner reads."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


class LogFile:
    """Writes lines in the order in which they came; used by any number of threads.

    Args:
        path: of the file, which only its owner reads.
        lost_line: returns the line that says how many were lost before the one that follows it.

    Attributes:
        lost: lines so far for which there was no room.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, lost_line: Callable[[int], str]) -> None:
        self._file = _PrivateFile(path, maxBytes=FILE_BYTES, backupCount=FILES)
        self._path, self._lost_line = path, lost_line
        self._changed = threading.Condition()
        self._lines: deque[str] = deque()  # the one that is being written among them
        self._untold = self.lost = 0
        self._is_closing = False
        self._thread = threading.Thread(target=self._write, name="log file", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Lines that are not written yet."""
        return len(self._lines)

    def put(self, line: str) -> None:
        """Has a line written soon; never waits for the disk."""
        with self._changed:
            if self._is_closing:
                return
            is_full = len(self._lines) >= MOST_WAITING
            is_news = is_full and not self._untold
            self._untold += is_full
            self.lost += is_full
            if not is_full:
                self._tell_lost()
                self._lines.append(line)
                self._changed.notify_all()
        if is_news:
            log.error("%s: %d lines wait for the disk, further ones are lost: see to it", self._path, MOST_WAITING)

    def flush(self, within_s: float = CLOSES_WITHIN_S) -> bool:
        """Returns whether all lines were written within a time [s]."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines, within_s)

    def close(self) -> None:
        """Writes what waits, as far as the disk takes it in time, and closes the file; later lines are not written."""
        with self._changed:
            self._tell_lost()
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(CLOSES_WITHIN_S)
        if self._thread.is_alive():
            log.error("%s: %d lines were not written, for the disk does not take them", self._path, len(self._lines))

    def _tell_lost(self) -> None:
        if self._untold:
            self._lines.append(self._lost_line(self._untold))
            self._untold = 0

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closing)
                if not self._lines:
                    break
                line = self._lines[0]
            self._file.handle(logging.LogRecord("qtopt.audit", logging.INFO, "", 0, line, None, None))
            with self._changed:
                self._lines.popleft()
                self._changed.notify_all()
        self._file.close()
