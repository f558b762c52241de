"""Keeps freed memory in the process. Messages and activations are megabytes, allocated and freed many times a second.

The C library gives such blocks back to the system each time, and every page of the next one costs a fault: measured
with 2 MB batches on loopback, a receiving client spends 4.5 ms of CPU a batch so, and 1.4 ms when freed memory is kept;
a gradient step on 64 images of 72 px takes 8 % less.

What is kept is kept in each of the library's arenas, and it makes eight for each processor: a server that takes 6 MB
episodes on two processors held 1,330 MB so, of which 110 MB were in use at rest, and grew for hours as arena after
arena met its largest moment. With two arenas it held 984 MB at most with 128 collectors at full speed, and grew by
1.6 MB with each thousand episodes, of which 0.7 are their steps (docs/results/fleet).
"""

import ctypes
import functools
from typing import Final

# Parameters of glibc's mallopt (malloc.h). Each of them turns the library's own adaptation off: set both or neither.
_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_LARGEST_BLOCK_BYTES: Final = 32 << 20  # the most that older releases take
_KEPT_BYTES: Final = 256 << 20
_TAKEN_AT_ONCE_BYTES: Final = 64 << 20
_ARENAS: Final = 2


@functools.cache
def keep_freed_memory() -> bool:
    """Lets the allocator reuse blocks up to 32 MB and keep up to 256 MB; False where it has no such settings.

    It also takes 64 MB at a time from the system, so that a heap that breathes does not fault page by page.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_MMAP_THRESHOLD, _LARGEST_BLOCK_BYTES),
        (_TRIM_THRESHOLD, _KEPT_BYTES),
        (_TOP_PAD, _TAKEN_AT_ONCE_BYTES),
        (_ARENA_MAX, _ARENAS),
    )
    return all(bool(mallopt(parameter, value)) for parameter, value in settings)
