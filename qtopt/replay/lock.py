"""One writer for a directory at a time."""

import contextlib
import fcntl
import os
from pathlib import Path

from qtopt.errors import StoreError

LOCK_FILE = "lock"


class WriterLock:
    """Holds the lock of a directory until ``release``; the system releases it when the process dies, however it dies.

    Args:
        root: the directory, which is there.
        what: is being done with what it holds, and by whom, in words.
        instead: what else its reader may do than stop the other process.
        name: of the file that is locked.

    Raises:
        StoreError: another process has it.
        OSError: the file cannot be made.
    """

    def __init__(
        self,
        root: Path,
        what: str = "the store is being written by process",
        instead: str = "open the store for reading only",
        name: str = LOCK_FILE,
    ) -> None:
        self._file = os.open(root / name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StoreError(f"{root}: {what} {holder}; stop that process, or {instead}") from error
        with contextlib.suppress(OSError):  # a note for others; a full disk has no room for it
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Lets the next writer in."""
        os.close(self._file)
