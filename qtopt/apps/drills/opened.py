"""A store opened in a process of its own: ``python -m qtopt.apps.drills.opened STORE`` prints what that took."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from qtopt.replay import EpisodeStore
from qtopt.types import JsonValue

_BATCH, _BATCHES = 64, 1000


def measure_opening(path: Path) -> dict[str, JsonValue]:
    """Opens a store to write, as a server does, samples, and returns what that took."""
    before = psutil.Process().memory_info().rss
    started, busy = time.perf_counter(), time.process_time()
    with EpisodeStore(path, rng=np.random.default_rng(0)) as store:
        opened_s, opening_cpu_s = time.perf_counter() - started, time.process_time() - busy
        stats = store.stats()
        for _ in range(_BATCHES):
            store.sample_transitions(_BATCH, 1.0)
        memory = psutil.Process().memory_full_info()
    return {
        "episodes": int(stats["episodes"]),
        "transitions": int(stats["transitions"]),
        "open_s": round(opened_s, 3),
        "open_cpu_s": round(opening_cpu_s, 3),
        "landed_steps": int(stats["landed_steps"]),
        "segments": int(stats["segments"]),
        "files": sum(len(names) for _, _, names in os.walk(path)),
        "disk_mb": round(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6, 1),
        "memory_before_mib": round(before / 2**20, 1),
        "memory_mib": round(memory.rss / 2**20, 1),
        "memory_of_its_own_mib": round(memory.uss / 2**20, 1),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_opening(Path(sys.argv[1]))) + "\n")
