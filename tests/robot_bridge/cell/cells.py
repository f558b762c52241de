"""A simulated cell behind the UR protocol, in a process of its own, for tests that kill what drives it."""

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time

import psutil

STILL_M = 2e-4
"""Of 0.2 s: a tenth of the slowest motion in these tests would go further."""


class SimCell:
    """``qtopt robot serve-sim`` on an address of its own; ``truth`` asks the plant, not the wire."""

    def __init__(self, directory, host):
        self.host, self.path = host, directory / "cell.toml"
        command = [sys.executable, "-m", "qtopt.cli", "robot", "serve-sim", "--host", host, "--output", str(self.path)]
        self.process = subprocess.Popen(
            [*command, "--camera-px", "128", "--fps", "15"], stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        port = int(line.split("faults on port ")[1].split(";")[0])
        # Simulator and driver share this machine with other tests: a controller that hears nothing for 0.1 s, as by
        # default, would stop where nobody failed.
        text = self.path.read_text()
        self.path.write_text(text.replace("\n\n[gripper]", "\nwatchdog_hz = 4.0\n\n[gripper]"))
        self._socket = socket.create_connection((host, port))
        self._file = self._socket.makefile("rw")

    def inject(self, **request):
        self._file.write(json.dumps(request) + "\n")
        self._file.flush()
        return json.loads(self._file.readline())

    def truth(self):
        return self.inject(fault="truth")

    def close(self):
        self._file.close()
        self._socket.close()
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()


class Lateness:
    """How much later than asked for this machine wakes a sleeper, at worst, while a ``with`` statement runs."""

    def __enter__(self):
        self.most_s, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.is_set():
            due = time.monotonic() + 0.01
            time.sleep(0.01)
            self.most_s = max(self.most_s, time.monotonic() - due)


def wait_until(what, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.02)
    return False


def wait_still(sim, seconds=10.0):
    """Returns the truth once the tool stands, seen twice; fails where it does not."""
    deadline, before = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        now = sim.truth()
        if before is not None and math.dist(before["tool"][:3], now["tool"][:3]) < STILL_M:
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
