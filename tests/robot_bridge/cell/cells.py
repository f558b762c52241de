"""What tests of a cell's processes ask of the simulator and of the system."""

import contextlib
import math
import os
import time

import psutil

STILL_M = 2e-4
"""Of 0.2 s: a tenth of the slowest motion in these tests would go further."""


def wait_still(sim, seconds=10.0, still_m=STILL_M):
    """Returns the truth once the tool stands, seen twice within ``still_m``; fails where it does not."""
    deadline, before = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        now = sim.truth()
        if before is not None and math.dist(before["tool"][:3], now["tool"][:3]) < still_m:
            return now
        before = now
        time.sleep(0.2)
    raise AssertionError(f"the tool did not come to rest within {seconds} s: {before}, then {now}")


def processes_of(cell_path):
    """Returns the processes that work on a cell file."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if any("robot_bridge.cell." in word for word in words) and any(str(cell_path) in word for word in words):
                found.append(process)
    return found


def end_all(processes):
    for process in processes:
        with contextlib.suppress(psutil.Error):
            os.kill(process.pid, 9)
