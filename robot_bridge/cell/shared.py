"""Memory that the processes of a cell share: rings of newest records, and heartbeats.

The memory has no name: it is passed on as a file descriptor and is gone with the last process that has it, however that
process ended. Each ring has one writer and any number of readers, none of whom ever waits. A record is published by the
number of the newest; a reader checks number and checksum of what it copied, so that no torn record is ever believed on
any processor, and a writer that was killed half way leaves the record before it in place.
"""

import mmap
import os
import struct
import time
import zlib
from enum import IntEnum
from typing import Final

_COUNT: Final = struct.Struct("<Q")
_ENTRY: Final = struct.Struct("<QII")
_BEAT: Final = struct.Struct("<Q")
_HEAD_BYTES: Final = 64
_TRIES: Final = 20


class Member(IntEnum):
    """The processes that show each other that they live."""

    COLLECTOR = 0
    ARM = 1
    SAFETY = 2


class Memory:
    """Anonymous shared memory.

    Args:
        fd: of memory made by another process; without it new memory is made.
        size: bytes of new memory.

    Attributes:
        fd: to pass on to other processes.
    """

    def __init__(self, fd: int | None = None, size: int = 0) -> None:
        if fd is None:
            fd = os.memfd_create("cell", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
        self.fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)

    def read(self, start: int, size: int) -> bytes:
        """Returns ``size`` bytes from ``start``."""
        return self._map[start : start + size]

    def write(self, start: int, content: bytes) -> None:
        """Puts ``content`` at ``start``."""
        self._map[start : start + len(content)] = content

    def close(self) -> None:
        """Can be passed on no more; a second call does nothing. Another thread may still read what is in it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Ring:
    """The newest records of one writer.

    Args:
        memory: where it lies.
        start: its first byte there.
        record_bytes: largest record.
        records: how many are kept; a reader has as long as the writer needs for all but one of them.
    """

    def __init__(self, memory: Memory, start: int, record_bytes: int, records: int = 8) -> None:
        self._memory, self._start, self._largest, self._records = memory, start, record_bytes, records
        self._stride = _ENTRY.size + record_bytes

    @staticmethod
    def size(record_bytes: int, records: int = 8) -> int:
        """Returns how many bytes of memory such a ring takes."""
        return _HEAD_BYTES + records * (_ENTRY.size + record_bytes)

    def write(self, record: bytes) -> None:
        """Publishes a record; raises ValueError where it is larger than the ring was made for."""
        if len(record) > self._largest:
            raise ValueError(f"record of {len(record)} bytes, expected at most {self._largest}")
        number = self.count + 1
        head = _ENTRY.pack(number, len(record), zlib.crc32(record))
        self._memory.write(self._place(number), head + record)
        self._memory.write(self._start, _COUNT.pack(number))

    @property
    def count(self) -> int:
        """Records published so far."""
        return int(_COUNT.unpack(self._memory.read(self._start, _COUNT.size))[0])

    def newest(self) -> bytes | None:
        """Returns the newest record; None before the first."""
        for _ in range(_TRIES):
            number = self.count
            if number == 0:
                return None
            record = self._read(number)
            if record is not None:
                return record
        return None

    def _read(self, number: int) -> bytes | None:
        place = self._place(number)
        found, length, checksum = _ENTRY.unpack(self._memory.read(place, _ENTRY.size))
        if found != number or length > self._largest:
            return None
        record = self._memory.read(place + _ENTRY.size, length)
        return record if zlib.crc32(record) == checksum else None

    def _place(self, number: int) -> int:
        return self._start + _HEAD_BYTES + (number % self._records) * self._stride


RECORD_BYTES: Final = 4096
_RINGS_START: Final = 4096


class Board:
    """What the processes of a cell tell each other without waiting: heartbeats, the arm's and the safety's reports.

    Args:
        fd: of a board made by another process; without it a new one is made.

    Attributes:
        arm: records of the arm's process.
        safety: records of the safety process.
    """

    def __init__(self, fd: int | None = None) -> None:
        ring_bytes = Ring.size(RECORD_BYTES)
        self._memory = Memory(fd, _RINGS_START + 2 * ring_bytes)
        self.arm = Ring(self._memory, _RINGS_START, RECORD_BYTES)
        self.safety = Ring(self._memory, _RINGS_START + ring_bytes, RECORD_BYTES)

    @property
    def fd(self) -> int:
        """The file descriptor to pass on."""
        return self._memory.fd

    def beat(self, member: Member) -> None:
        """Shows that ``member`` lives."""
        self._memory.write(member * 64, _BEAT.pack(time.monotonic_ns()))

    def beat_ns(self, member: Member) -> int:
        """Returns when ``member`` last showed that it lives (monotonic); 0 where it never has."""
        return int(_BEAT.unpack(self._memory.read(member * 64, _BEAT.size))[0])

    def silence_s(self, member: Member) -> float | None:
        """Returns how long ago ``member`` last showed that it lives [s]; None where it never has."""
        beat_ns = self.beat_ns(member)
        return None if beat_ns == 0 else (time.monotonic_ns() - beat_ns) / 1e9

    def close(self) -> None:
        """Gives the memory back; a second call does nothing."""
        self._memory.close()
