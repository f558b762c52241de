"""What was really so: a plant's own record of what the fingers held, for comparison with what a judge said of it."""

import json
import threading
import time
from pathlib import Path
from typing import Final

from sim.plant import Plant

_EVERY_S: Final = 0.05


class TruthLog:
    """Appends a line of JSON twenty times a second: time (seconds since the epoch), height, fingers, what touches them.

    Args:
        plant: running.
        cell: name of the cell, as its file has it.
        path: the file; an old one is gone on with.
    """

    def __init__(self, plant: Plant, cell: str, path: Path) -> None:
        self._plant, self._cell, self._file = plant, cell, path.open("a", buffering=1)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="truth", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the record; a second call does nothing."""
        self._closing.set()
        self._thread.join()
        self._file.close()

    def _write(self) -> None:
        while not self._closing.wait(_EVERY_S):
            state = self._plant.state()
            low_m = state.touched_low_m
            row = {
                "cell": self._cell,
                "time_s": round(time.time(), 3),
                "z_m": round(state.tool.z_m, 4),
                "width_m": round(state.width_m, 4),
                "told_width_m": round(state.told_width_m, 4),
                "touched_low_m": None if low_m is None else round(low_m, 4),
            }
            self._file.write(json.dumps(row) + "\n")
