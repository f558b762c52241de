"""One writer for a store at a time."""

import contextlib
import fcntl
import os
from pathlib import Path

from qtopt.errors import StoreError

LOCK_FILE = "lock"


class WriterLock:
    """Holds the lock of a store until ``release``; the system releases it when the process dies, however it dies."""

    def __init__(self, root: Path) -> None:
        self._file = os.open(root / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StoreError(
                f"{root}: the store is being written by process {holder}; stop that process, or open the store for "
                "reading only"
            ) from error
        with contextlib.suppress(OSError):  # a note for others; a full disk has no room for it
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Lets the next writer in."""
        os.close(self._file)
