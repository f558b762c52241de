"""What tests of a cell's processes ask of the simulator and of the system."""

import contextlib
import math
import os
import threading
import time

import psutil

from qtopt.errors import RobotError
from robot_bridge.cell.open import PhysicalCell

STILL_M = 2e-4
"""Of 0.2 s: a tenth of the slowest motion in these tests would go further."""


_BORNE = "[watchdog]\nhold_s = 0.5\nstop_s = 1.0\nlatch_s = 2.0\narm_latch_s = 0.3\n"


class Beginning:
    """The next episode, begun by a thread as a collector does; at the end of the block it is told to end.

    Attributes:
        raised: what it raised, if anything.
        idle: how often it was idle while it waited.
    """

    def __init__(self, path):
        self._stop = threading.Event()
        self.raised, self.idle = None, 0
        self.cell = PhysicalCell(path, 72, self._stop.is_set, idle=self._count)
        self._thread = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        self.cell.close()

    def start(self):
        """Begins an episode; again once the one before has begun."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self):
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60.0)

    def ended(self, seconds=0.0):
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _count(self):
        self.idle += 1

    def _run(self):
        try:
            self.cell.start_episode()
        except RobotError as error:
            self.raised = error


def after(seconds):
    """Returns what a cell that waits in a test's own thread is stopped by: true once ``seconds`` have passed."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def bear_lateness(path):
    """Has a cell file bear as much lateness as it may, for tests of other things on a machine that stalls at times."""
    text = path.read_text().replace("watchdog_hz = 4.0", "watchdog_hz = 1.0")
    if "[watchdog]\n" not in text:
        text += "\n[watchdog]\n"
    path.write_text(text.replace("[watchdog]\n", _BORNE))


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
