"""Whether the disk takes episodes now: enough room, writable, and answering."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qtopt.errors import StoreError, StoreFull

STALLED_S: Final = 10.0
"""A commit that takes longer than this says that the disk does not answer."""

_PROBE: Final = "probe"
_MARGIN_BYTES: Final = 65536
"""What an episode takes beside its frames, at most."""


@dataclass(frozen=True, slots=True)
class StoreCondition:
    """What a health check has to know of a store.

    Attributes:
        writable: whether an episode appended now would be stored.
        free_bytes: room on the disk.
        reason: why it is not writable; empty when it is.
    """

    writable: bool
    free_bytes: int
    reason: str = ""


class DiskWatch:
    """Watches the commits of a store and the room on its disk.

    Args:
        root: of the store.
        min_free_bytes: below this the store takes no episodes, so that there is room to open it and to clean up.
    """

    def __init__(self, root: Path, min_free_bytes: float) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._began_s: float | None = None
        self._failure = ""
        self._failed_bytes = 0

    @contextmanager
    def commit(self, episode_bytes: int) -> Iterator[None]:
        """Surrounds a commit of episodes of so many bytes at most.

        Raises:
            StoreFull: there is too little room, or the disk fails.
        """
        try:
            shortage = self._shortage(self._free_bytes())
        except OSError as error:
            raise self._failing(error) from error
        if shortage:
            raise StoreFull(f"{self._root}: {shortage}; nothing was stored: free disk space and try again")
        self._began_s = time.monotonic()
        try:
            yield
            self._failure = ""
        except (OSError, StoreError) as error:
            self._failure, self._failed_bytes = str(error), episode_bytes
            if isinstance(error, OSError):
                raise self._failing(error) from error
            raise
        finally:
            self._began_s = None

    def condition(self) -> StoreCondition:
        """Returns whether a commit would succeed; after one that failed, by trying."""
        began_s = self._began_s
        try:
            free = self._free_bytes()
        except OSError as error:
            return StoreCondition(writable=False, free_bytes=0, reason=str(error))
        waited_s = 0.0 if began_s is None else time.monotonic() - began_s
        stalled = f"the disk has not answered for {waited_s:.0f} s" if waited_s > STALLED_S else ""
        reason = self._shortage(free) or stalled or self._still_failing()
        return StoreCondition(writable=not reason, free_bytes=free, reason=reason)

    def _failing(self, error: OSError) -> StoreFull:
        return StoreFull(f"{self._root}: {error}; nothing was acknowledged: see to the disk and try again")

    def spare_bytes(self) -> int:
        """Returns how much may be written that is not an episode's first copy: the room beyond what is kept free.

        Raises:
            StoreFull: the disk does not say.
        """
        try:
            return self._free_bytes() - int(self._min_free_bytes)
        except OSError as error:
            raise StoreFull(f"{self._root}: {error}; see to the disk") from error

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def _shortage(self, free_bytes: int) -> str:
        if free_bytes >= self._min_free_bytes:
            return ""
        return f"the disk has {free_bytes / 1e6:.1f} MB left, expected {self._min_free_bytes / 1e6:g} or more"

    def _still_failing(self) -> str:
        """Returns why the last commit failed, unless as much as it brought can be written again."""
        if not self._failure:
            return ""
        path = self._root / _PROBE
        try:
            with path.open("wb") as file:
                file.write(bytes(self._failed_bytes + _MARGIN_BYTES))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
        except OSError:
            with suppress(OSError):
                path.unlink()
            return self._failure
        self._failure = ""
        return ""
