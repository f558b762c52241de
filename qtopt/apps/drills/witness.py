"""Who saw an episode finished and delivered: the kernel's own notices of files in the spools, whatever is killed."""

import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qtopt.apps.drills.joining import join_within

_ARRIVED, _LEFT, _REMOVED, _LOST = 0x80, 0x40, 0x200, 0x4000  # moved to, moved from, deleted, queue overflow
_HEAD: Final = struct.Struct("iIII")
_SUFFIX: Final = ".safetensors"


@dataclass
class Seen:
    """What a spool's directory has seen.

    Attributes:
        kept: UUIDs in the order in which they became files, each with when [s, monotonic].
        gone: UUIDs whose file was removed, each with when: the collector has had its acknowledgement.
        aside: UUIDs whose file was moved away: damaged, or refused by the server.
    """

    kept: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Files that are there."""
        return len(self.kept) - len(self.gone) - len(self.aside)


class Witness:
    """Watches spools through inotify. Use as a context manager; begin before the spools' owners do.

    Args:
        spools: directories, made if missing.

    Attributes:
        seen: by directory.
        overflowed: whether the kernel had more to tell than it could keep, which makes all of this worthless.
    """

    def __init__(self, spools: Sequence[Path]) -> None:
        self.seen = {spool: Seen() for spool in spools}
        self.overflowed = False
        self._over = False
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_CLOEXEC)
        self._spools: dict[int, Seen] = {}
        for spool, seen in self.seen.items():
            spool.mkdir(parents=True, exist_ok=True)
            number = libc.inotify_add_watch(self._handle, os.fsencode(spool), _ARRIVED | _LEFT | _REMOVED)
            if number < 0:
                raise OSError(ctypes.get_errno(), f"cannot watch {spool}")
            self._spools[number] = seen
        self._thread = threading.Thread(target=self._read, name="witness", daemon=True)

    def __enter__(self) -> "Witness":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        join_within([self._thread])
        os.close(self._handle)

    @property
    def finished(self) -> int:
        """Episodes finished so far."""
        return sum(len(seen.kept) for seen in self.seen.values())

    @property
    def delivered(self) -> int:
        """Episodes acknowledged so far."""
        return sum(len(seen.gone) for seen in self.seen.values())

    @property
    def waiting(self) -> int:
        """Episodes finished and not acknowledged."""
        return sum(seen.waiting for seen in self.seen.values())

    def _read(self) -> None:
        while not self._over:
            if not select.select([self._handle], [], [], 0.2)[0]:
                continue
            content, now = os.read(self._handle, 1 << 16), time.monotonic()
            while content:
                number, mask, _, length = _HEAD.unpack_from(content)
                name = os.fsdecode(content[_HEAD.size : _HEAD.size + length].rstrip(b"\0"))
                content = content[_HEAD.size + length :]
                if mask & _LOST:
                    self.overflowed = True
                elif name.endswith(_SUFFIX):
                    self._note(self._spools[number], mask, name.removesuffix(_SUFFIX).partition("_")[2], now)

    def _note(self, seen: Seen, mask: int, uuid: str, now: float) -> None:
        if mask & _ARRIVED:
            seen.kept[uuid] = now
        elif mask & _REMOVED:
            seen.gone[uuid] = now
        else:
            seen.aside.append(uuid)
