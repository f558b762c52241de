"""What the disk does by itself: so many writers at a time, each write followed by fsync, no index, no checks."""

import os
import threading
import time
from pathlib import Path

import numpy as np

from qtopt.apps.drills.joining import PATIENCE_S, join_within
from qtopt.types import JsonValue


def measure(directory: Path, writers: int, size_bytes: int, seconds: float) -> dict[str, JsonValue]:
    """Writes files of random bytes, ``writers`` at a time, for some seconds; returns rates and waiting times."""
    content = np.random.default_rng(0).bytes(size_bytes)
    end = time.monotonic() + seconds
    waits: list[list[float]] = [[] for _ in range(writers)]
    directory.mkdir(parents=True, exist_ok=True)

    def write(number: int) -> None:
        path = directory / f"raw-{number}"
        while time.monotonic() < end:
            started = time.monotonic()
            with path.open("wb", buffering=0) as file:
                file.write(content)
                os.fsync(file.fileno())
            waits[number].append(time.monotonic() - started)
            path.unlink()

    started = time.monotonic()
    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(writers)]
    for thread in threads:
        thread.start()
    join_within(threads, seconds + PATIENCE_S)
    elapsed_s = time.monotonic() - started
    every = np.concatenate([np.array(wait) for wait in waits])
    p50, p99 = np.percentile(every, [50, 99]).round(4).tolist()
    return {
        "writes_per_s": round(len(every) / elapsed_s, 2),
        "mb_per_s": round(len(every) * size_bytes / elapsed_s / 1e6, 1),
        "p50_s": p50,
        "p99_s": p99,
    }
