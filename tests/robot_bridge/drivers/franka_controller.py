"""franky-sim in a process of its own, for the tests that need a Franka.

franky-sim needs MuJoCo and Pinocchio and is no dependency. The tests run where ``FRANKY_SIM_PYTHON`` names an
interpreter that has it, or where ``franky-sim`` is on the path.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

PROGRAM = shutil.which("franky-sim")
PYTHON = os.environ.get("FRANKY_SIM_PYTHON") or (str(Path(PROGRAM).parent / "python") if PROGRAM else None)

needs_sim = pytest.mark.skipif(
    PYTHON is None,
    reason="franky-sim is not installed: pip install it into an environment of its own and set FRANKY_SIM_PYTHON",
)


class Controller:
    """franky-sim in its own process."""

    def __init__(self, address):
        self.address = address
        program = Path(__file__).with_name("franka_sim.py")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [PYTHON, str(program), address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout.readline() == "serving\n"

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def wait_for(condition, seconds=40.0):
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def stands(controller):
    """Whether no joint leaves its place within a tenth of a second: at rest they tremble on the spot."""
    before = controller.ask()
    wait_for(lambda: controller.ask()["time_s"] >= before["time_s"] + 0.1)
    now = controller.ask()
    return all(abs(a - b) < 1e-3 for a, b in zip(now["joints_rad"], before["joints_rad"], strict=True))


def wait_for_rest(controller):
    wait_for(lambda: stands(controller))
