"""A one-dimensional array that grows at its end."""

from typing import Any

import numpy as np
import numpy.typing as npt


class Growable:
    """An append-only array; its storage doubles, so that appending costs a constant time on average.

    A view handed out stays as it is: growing copies to new storage and never moves what is there.
    """

    def __init__(self, dtype: npt.DTypeLike, capacity: int = 64) -> None:
        self._storage = np.zeros(capacity, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def view(self) -> npt.NDArray[Any]:
        """What was appended so far; not a copy."""
        return self._storage[: self._size]

    def extend(self, values: npt.ArrayLike) -> None:
        """Appends ``values``."""
        added = np.asarray(values, self._storage.dtype)
        needed = self._size + len(added)
        if needed > len(self._storage):
            grown = np.zeros(max(needed, 2 * len(self._storage)), self._storage.dtype)
            _whole(grown)[: self._size] = _whole(self.view)
            self._storage = grown
        _whole(self._storage)[self._size : needed] = _whole(added)
        self._size = needed

    def shrink(self, count: int) -> None:
        """Forgets the last ``count`` values."""
        self._size -= count

    def drop_first(self, count: int) -> None:
        """Forgets the first ``count`` values and frees their memory."""
        kept = self.view[count:]
        self._storage = np.zeros(max(64, len(kept)), self._storage.dtype)
        self._storage[: len(kept)] = kept
        self._size = len(kept)


def _whole(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns an array of records as rows of bytes, which are copied many times faster than field by field."""
    if array.dtype.names is None:
        return array
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), array.dtype.itemsize)
