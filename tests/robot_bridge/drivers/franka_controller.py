"""franky-sim in a process of its own, for the tests that need a Franka.

franky-sim needs MuJoCo and Pinocchio and is no dependency. The tests run where ``FRANKY_SIM_PYTHON`` names an
interpreter that has it, or where ``franky-sim`` is on the path.
"""

import time

import pytest

from sim.servers.franka import FrankySim, interpreter

Controller = FrankySim

needs_sim = pytest.mark.skipif(
    interpreter() is None,
    reason="franky-sim is not installed: pip install it into an environment of its own and set FRANKY_SIM_PYTHON",
)


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
