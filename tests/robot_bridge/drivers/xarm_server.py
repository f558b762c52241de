"""A simulated xArm controller as a process of its own, and its fault port."""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from robot_bridge.contracts import Pose
from robot_bridge.drivers.xarm_options import XArmOptions

ROOT = Path(__file__).parents[3]
CONTROL_PORT = 1502
BOX_LOW_M, BOX_HIGH_M = (0.45, -0.2, 0.0), (0.75, 0.2, 0.35)
DOWN = (1.0, 0.0, 0.0, 0.0)
LIBRARY_WARNS = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
"""The vendor's library logs with a method that Python is giving up."""
_hosts = itertools.count(1)


def down(x_m: float, y_m: float, z_m: float) -> Pose:
    return Pose((x_m, y_m, z_m), DOWN)


class Server:
    """A running controller. ``inject`` breaks something, ``truth`` tells what is really so."""

    def __init__(self, ready: dict[str, Any]) -> None:
        self.host: str = ready["host"]
        self._connection = socket.create_connection((self.host, ready["fault_port"]), 10.0)
        self._lines = self._connection.makefile("rwb")
        self.options = XArmOptions(self.host, BOX_LOW_M, BOX_HIGH_M, control_port=ready["control_port"])

    def inject(self, fault: str, value: Any = True) -> None:
        answer = self._ask({"fault": fault, "value": value})
        assert answer == {"ok": True}, answer

    def truth(self) -> dict[str, Any]:
        return self._ask({"truth": True})

    def tool_m(self) -> tuple[float, float, float]:
        x_m, y_m, z_m, _ = self.truth()["tool"]
        return x_m, y_m, z_m

    def close(self) -> None:
        self._lines.close()
        self._connection.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._lines.write(json.dumps(request).encode() + b"\n")
        self._lines.flush()
        return json.loads(self._lines.readline())


@contextmanager
def running(seed: int = 0) -> Iterator[Server]:
    host = f"127.4.{os.getpid() % 250}.{next(_hosts)}"
    command = [sys.executable, "-m", "sim.servers.xarm", "--host", host, "--control-port", str(CONTROL_PORT)]
    process = subprocess.Popen([*command, "--seed", str(seed)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        server = Server(json.loads(process.stdout.readline()))
        try:
            yield server
        finally:
            server.close()
    finally:
        process.terminate()
        code = process.wait(10)
        process.stdout.close()
        assert code == 0, "the server did not end by itself"


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> float:
    """Waits until something is so; returns how long it took [s]."""
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() - start_s < timeout_s, "it did not happen in time"
        time.sleep(0.005)
    return time.monotonic() - start_s
