"""The steps of everything that is kept, side by side in memory: a batch drawn from anywhere is one gather."""

import threading

import numpy as np

from qtopt.replay.growable import Growable
from qtopt.replay.schema import STEP_DTYPE, Rows
from qtopt.replay.shelf import Retired
from qtopt.types import IntArray


class StepTable:
    """Rows of the step table by position: 67 bytes each, and 8 for the place of the frame.

    Every method may be called by several threads at a time.

    Args:
        base: position of the first row.
        capacity: rows for which there is room at once.
    """

    def __init__(self, base: int = 0, capacity: int = 64) -> None:
        self._state = (base, Growable(STEP_DTYPE, capacity), Growable(np.int64, capacity))
        self._frame_bytes = 0
        self._changing = threading.Lock()

    @property
    def base(self) -> int:
        """Position of the first row held."""
        return self._state[0]

    @property
    def end(self) -> int:
        """Position behind the last row held."""
        base, rows, _ = self._state
        return base + len(rows)

    def extend(self, rows: Rows, frame_offsets: IntArray | None = None, frame_bytes: int | None = None) -> None:
        """Adds rows at the end, whose frames lie end to end.

        Args:
            rows: of the step table, (B,).
            frame_offsets: where each frame begins, counted from the first, int64 (B,), where sizes in ``rows`` may
                be damaged.
            frame_bytes: of all these frames, where sizes in ``rows`` may be damaged.
        """
        ends = np.cumsum(rows["frame_bytes"], dtype=np.int64)
        offsets = ends - rows["frame_bytes"] if frame_offsets is None else frame_offsets
        with self._changing:
            _, held, frames = self._state
            frames.extend(self._frame_bytes + offsets)
            held.extend(rows)
            self._frame_bytes += int(ends[-1]) if frame_bytes is None and len(ends) else frame_bytes or 0

    def between(self, start: int, stop: int) -> Rows:
        """Returns the rows from ``start`` up to ``stop``, not a copy."""
        base, rows, _ = self._state
        return rows.view[start - base : stop - base]

    def take(self, positions: IntArray) -> Rows:
        """Returns a copy of the rows at ``positions``, (B,). Raises Retired for what is held no longer."""
        base, rows, _ = self._state
        return rows.view[_inside(positions, base)]

    def frame_offsets(self, positions: IntArray, origins: IntArray) -> IntArray:
        """Returns where frames begin, counted from where the frames at ``origins`` do, int64 (B,). Raises Retired."""
        base, _, frames = self._state
        return np.asarray(frames.view[_inside(positions, base)] - frames.view[_inside(origins, base)])

    def drop_before(self, position: int) -> None:
        """Forgets the rows before ``position``; what is kept is copied."""
        with self._changing:
            base, rows, frames = self._state
            kept = Growable(STEP_DTYPE), Growable(np.int64)
            for new, old in zip(kept, (rows, frames), strict=True):
                new.extend(old.view[position - base :])
            self._state = (position, *kept)


def _inside(positions: IntArray, base: int) -> IntArray:
    gone = positions < base
    if gone.any():
        raise Retired(positions[gone].tolist(), "retired")
    return positions - base
