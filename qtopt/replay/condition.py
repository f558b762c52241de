"""Whether the disk takes episodes now: enough room, writable, and answering."""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qtopt.errors import StoreError, StoreFull
from qtopt.replay.landing_log import LANDING

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
        try_catalogue: raises StoreError where the catalogue takes no commit.
    """

    def __init__(self, root: Path, min_free_bytes: float, try_catalogue: Callable[[], None]) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._try_catalogue = try_catalogue
        self._began_s: float | None = None
        self._failure = ""
        self._failed_bytes = 0
        self._for_want_of_room = False
        self._protection = ""  # that the disk is read-only, where the last try found that

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
        except Exception as error:
            self._for_want_of_room, self._failed_bytes = isinstance(error, OSError | StoreFull), episode_bytes
            self._failure = str(error) if isinstance(error, OSError | StoreError) else repr(error)
            if isinstance(error, OSError):
                raise self._failing(error) from error
            raise
        finally:
            self._began_s = None

    def succeeded(self) -> None:
        """Takes note of a commit that wrote something: whatever failed before does so no longer."""
        self._failure = self._protection = ""

    def condition(self, *, tries: bool = True) -> StoreCondition:
        """Returns whether a commit would succeed: after one that failed for want of room, by trying.

        After one that failed for another reason, which cannot be tried, the next that succeeds tells.

        Args:
            tries: whether to write to the disk, which may hang; without, what was found the last time counts.
        """
        began_s = self._began_s
        try:
            free = self._free_bytes()
        except OSError as error:
            return StoreCondition(writable=False, free_bytes=0, reason=str(error))
        waited_s = 0.0 if began_s is None else time.monotonic() - began_s
        stalled = f"the disk has not answered for {waited_s:.0f} s" if waited_s > STALLED_S else ""
        reason = self._shortage(free) or stalled or (self._still_failing() if tries else self._failure)
        if not reason and tries and began_s is None:
            self._protection = self._read_only()
        reason = reason or self._protection
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

    def _read_only(self) -> str:
        """Returns that the disk is read-only, or nothing; of an error in ext4, only who tries to write is told."""
        try:
            self._root.chmod(stat.S_IMODE(self._root.stat().st_mode))
        except OSError as error:
            return f"the disk is read-only ({error})" if error.errno == errno.EROFS else ""
        return ""

    def _still_failing(self) -> str:
        """Returns why the last commit failed, unless as much as it brought can be written where it belongs now."""
        if not (self._failure and self._for_want_of_room):
            return self._failure
        landing = self._root / LANDING
        path = (landing if landing.exists() else self._root) / _PROBE
        try:
            with path.open("wb") as file:
                file.write(bytes(self._failed_bytes + _MARGIN_BYTES))
                file.flush()
                os.fsync(file.fileno())
            path.unlink(missing_ok=True)  # two may ask at a time
            self._try_catalogue()
        except (OSError, StoreError):
            with suppress(OSError):
                path.unlink()
            return self._failure
        self._failure = ""
        return ""
