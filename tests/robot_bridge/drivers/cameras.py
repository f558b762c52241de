"""A network camera in a process of its own, for tests of cameras."""

import contextlib
import subprocess
import sys
import time


class CameraProcess:
    """``python -m sim.servers.mjpeg``; ``fault`` says a line to it."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "sim.servers.mjpeg", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def fault(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def camera_process(*arguments):
    server = CameraProcess(*arguments)
    try:
        yield server
    finally:
        server.kill()


def eventually(call, error, within_s=8.0):
    """Calls until ``error`` is raised; returns it and how long it took."""
    started = time.monotonic()
    while time.monotonic() - started < within_s:
        try:
            call()
        except error as raised:
            return raised, time.monotonic() - started
        time.sleep(0.02)
    raise AssertionError(f"no {error.__name__} within {within_s} s")
