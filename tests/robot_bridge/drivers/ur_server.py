"""A simulated Universal Robots controller as a process of its own, its fault port, and drivers in child processes.

``ur_rtde`` sometimes crashes when its connection breaks; in a child process it takes no test run with it.
"""

import contextlib
import json
import math
import socket
import subprocess
import sys
import time

HOME = [0.6, 0.0, 0.25, 0.0]
FAULTS = (
    "silent", "frozen_clock", "split_frames", "duplicate_frames", "emergency_stop", "safeguard", "nan", "pose_jump",
    "unlock_refused", "unlock_lies", "in_use", "not_found", "safety_told",
)  # fmt: skip


class Lines:
    """A driver in a child process, asked in JSON lines."""

    def __init__(self, process):
        self.process, self._kept, self._number = process, {}, 0

    def begin(self, *request):
        self._number += 1
        self.process.stdin.write(json.dumps([self._number, *request]) + "\n")
        self.process.stdin.flush()
        return self._number

    def end(self, number):
        while number not in self._kept:
            line = self.process.stdout.readline()
            assert line, "the child process ended"
            if line.startswith("{"):
                answer = json.loads(line)
                self._kept[answer["tag"]] = answer
        return self._kept.pop(number)

    def __call__(self, *request):
        return self.end(self.begin(*request))

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


class Controller:
    """The controller's process and its fault port."""

    def __init__(self, host):
        self.host = host
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sim.servers.ur", "--host", host, "--with-parent"], stdout=subprocess.PIPE, text=True
        )
        ready = json.loads(self.process.stdout.readline())
        self._socket = socket.create_connection((host, ready["faults"]))
        self._port = self._socket.makefile("rw")

    def __call__(self, fault, **how):
        self._port.write(json.dumps({"fault": fault, **how}) + "\n")
        self._port.flush()
        answer = json.loads(self._port.readline())
        assert answer.pop("ok"), answer
        return answer

    def heal(self):
        """Takes every fault back, and does what a person does after a stop."""
        for fault in FAULTS:
            self(fault, on=False)
        self("speed_slider", fraction=1.0)
        self("person")

    def close(self):
        self._port.close()
        self._socket.close()
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()


class Keeper:
    """One driver for many tests; a new one where the last test broke it."""

    def __init__(self, host):
        self._host, self._lines = host, None

    def get(self):
        """Returns a driver that is connected, fit to move, and at ``HOME``."""
        if self._lines is not None and self._lines.process.poll() is not None:
            self.close()
        try:
            self._make_ready()
        except BaseException:
            self.close()
            raise
        return self._lines

    def close(self):
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def _make_ready(self):
        if self._lines is None:
            self._lines = start_child(self._host)
            answer = self._lines("connect", 30.0)
            assert "error" not in answer, answer
        answer = self._lines("recover")
        assert "error" not in answer, answer
        answer = self._lines("move", HOME, 0.5, 2.0, 20.0)
        assert answer["outcome"] == "reached", answer


def start_child(host, watchdog_hz=1.0):
    """Starts a driver; 1 Hz instead of 10, as the machine that tests is busier than a robot's."""
    command = [sys.executable, "-m", "tests.robot_bridge.drivers.ur_drive", host, str(watchdog_hz)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return Lines(subprocess.Popen(command, text=True, **pipes))


@contextlib.contextmanager
def child_of(host):
    """A driver of one's own, not connected."""
    lines = start_child(host)
    try:
        yield lines
    finally:
        lines.close()


def at_dashboard(host, *orders):
    """Sends orders to a controller's dashboard; returns once they have been carried out."""
    with socket.create_connection((host, 29999)) as dashboard:
        dashboard.sendall("\n".join([*orders, "quit", ""]).encode())
        while dashboard.recv(1024):
            pass


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def at_rest(controller):
    return not controller("truth")["moving"]


def distance(a, b):
    return math.dist(a[:3], b[:3])
