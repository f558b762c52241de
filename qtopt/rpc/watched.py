"""Files that may be replaced while a process runs: what was made of them is made again when they have changed."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from qtopt.errors import ConfigError

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Watched(Generic[T]):
    """What ``make`` made of ``paths``; used by any number of threads.

    Files that have changed are logged when they are taken. Those that are no good, such as half of a new pair, are
    logged once and left alone until they change again; meanwhile the last good value stays.

    Raises:
        ConfigError: what ``make`` raised the first time.
    """

    def __init__(self, paths: Sequence[Path], make: Callable[[], T]) -> None:
        self._paths, self._make = paths, make
        self._lock = threading.Lock()
        self._stamps = self._look()
        self._value = make()
        self._left_aside = False

    def get(self) -> T:
        """Returns the value, newly made if a file has changed since."""
        with self._lock:
            stamps = self._look()
            if stamps != self._stamps:
                self._stamps = stamps
                try:
                    self._value = self._make()
                    self._left_aside = False
                except ConfigError as error:
                    self._left_aside = True
                    log.warning("a changed file is left aside, the last good one stays in use", error=str(error))
                else:
                    log.info("changed files are in use from now on", files=[str(path) for path in self._paths])
            return self._value

    def left_aside(self) -> bool:
        """Returns whether the files, as they are now, are no good and the value is that of those before them."""
        self.get()
        return self._left_aside

    def _look(self) -> list[tuple[int, int, int]]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)
