"""A file of lines that a thread of its own writes: a disk that hangs or fails costs lines, and nobody any time."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

FILE_BYTES: Final = 16 << 20
"""A file that a line would make larger than this is put aside before."""
FILES: Final = 8
"""Files put aside that are kept."""
MOST_WAITING: Final = 4096
"""Lines that wait for the disk; further ones are lost, and counted."""
CLOSES_WITHIN_S: Final = 10.0
"""For so long an end waits for the disk."""


class _LinesFile:
    """A file of whole lines that only its owner reads; those put aside have numbers, 1 for the newest.

    It has no buffer: what the disk has refused is not written later.
    """

    def __init__(self, path: Path) -> None:
        path = path.absolute()
        self._places = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, FILES + 1))]
        self._file = self._open()
        self._break = "" if _ends_whole(path) else "\n"  # ends a half line that could not be taken back

    def write(self, text: str) -> None:
        """Writes a line, or several, or nothing of them; raises OSError."""
        line = f"{text}\n".encode()
        if self._size() + len(self._break) + len(line) > FILE_BYTES:
            self._put_aside()
        rest = data = self._break.encode() + line
        size = self._size()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            if len(rest) < len(data):
                self._take_back(size)
            raise
        self._break = ""

    def close(self) -> None:
        """Closes the file; raises OSError."""
        self._file.close()

    def _open(self) -> FileIO:
        descriptor = os.open(self._places[0], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _take_back(self, size: int) -> None:
        try:
            self._file.truncate(size)
        except OSError:
            self._break = "\n"

    def _put_aside(self) -> None:
        # Only up to the first free place: one that fails in between and is tried again pushes out nothing.
        free = next((number for number, place in enumerate(self._places) if not place.exists()), FILES)
        for number in range(free, 0, -1):
            self._places[number - 1].replace(self._places[number])
        full, self._file, self._break = self._file, self._open(), ""
        full.close()


def _ends_whole(path: Path) -> bool:
    """Returns whether a file has no half line at its end, as the power's failure may leave one."""
    if not path.is_file() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


class LogFile:
    """Writes lines in the order in which they came; used by any number of threads.

    Args:
        path: of the file, which only its owner reads.
        lost_line: returns the line that says how many were lost before the one that follows it.

    Attributes:
        lost: lines so far that are not in the file: too many waited, or the disk refused them.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, lost_line: Callable[[int], str]) -> None:
        self._file = _LinesFile(path)
        self._path, self._lost_line = path, lost_line
        self._changed = threading.Condition()
        self._lines: deque[tuple[int, str]] = deque()  # lost before each, and it; the one being written, too
        self._untold = self.lost = 0
        self._missing = 0  # lost before the next that the thread writes
        self._is_refused = self._is_closing = False
        self._thread = threading.Thread(target=self._write, name="log file", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Lines that wait for the disk."""
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
                self._lines.append((self._untold, line))
                self._untold = 0
                self._changed.notify_all()
        if is_news:
            log.error("%s: %d lines wait for the disk, further ones are lost: see to it", self._path, MOST_WAITING)

    def flush(self, within_s: float = CLOSES_WITHIN_S) -> bool:
        """Returns whether the disk had taken or refused all lines within a time [s]."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines, within_s)

    def close(self) -> None:
        """Writes what waits, as far as the disk takes it in time, and closes the file; later lines are not written."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(CLOSES_WITHIN_S)
        if self._thread.is_alive():
            log.error("%s: %d lines were not written, for the disk does not take them", self._path, len(self._lines))

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closing)
                if not self._lines:
                    break
                lost, line = self._lines[0]
            self._missing += lost
            is_lost = not self._try(self._tell, line)
            self._missing += is_lost
            with self._changed:
                self.lost += is_lost
                self._lines.popleft()
                self._changed.notify_all()
        self._missing += self._untold
        self._try(self._tell)
        self._try(self._file.close)

    def _tell(self, *lines: str) -> None:
        """Writes how many are missing, if any, and lines, all or nothing; raises OSError."""
        missing = [self._lost_line(self._missing)] if self._missing else []
        if missing or lines:
            self._file.write("\n".join([*missing, *lines]))
        self._missing = 0

    def _try(self, work: Callable[..., None], *lines: str) -> bool:
        """Returns whether the disk did it; refusals in a row are logged once."""
        try:
            work(*lines)
        except OSError as error:
            if not self._is_refused:
                log.error("%s: the disk refuses lines, which are lost (%s): see to it", self._path, error)
            self._is_refused = True
        else:
            self._is_refused = False
        return not self._is_refused
