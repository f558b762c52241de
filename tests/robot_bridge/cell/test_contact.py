"""What a tool does that meets something on its way: the simulated controller, its client and the cell's processes."""

import contextlib
import threading
from dataclasses import replace

import pytest

from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.places import STATE_VARIABLE
from sim.faults.cells import SimulatedCell
from tests.robot_bridge.cell.cells import after, bear_lateness, wait_still

TREMBLE_M = 3e-3
"""What presses on the tool lets it tremble; in 0.2 s the slowest motion goes twice as far."""
pytestmark = [pytest.mark.realtime, pytest.mark.timeout(120)]


@pytest.fixture
def sim(tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    with SimulatedCell("ur", tmp_path, "127.0.91.9", 0.25) as sim:
        bear_lateness(sim.path)
        yield sim


def test_what_presses_from_aside_ends_a_motion_and_the_episode_goes_on(sim):
    with contextlib.closing(PhysicalCell(sim.path, 72, stop=after(60.0))) as cell:
        cell.start_episode()
        robot = cell.robot
        robot.slow = True
        start = robot.state().tool
        wanted = replace(start, x_m=start.x_m - 0.05)
        press = threading.Timer(0.4, sim.inject, ("push",), {"force_n": [25.0, 0.0, 0.0]})
        press.start()
        try:
            reached = robot.move(wanted)
        finally:
            press.join()
        assert wanted.x_m + 0.01 < reached.x_m < start.x_m  # it stands before what presses
        stands = wait_still(sim, still_m=TREMBLE_M)["tool"]
        assert stands[:3] == pytest.approx((reached.x_m, reached.y_m, reached.z_m), abs=0.006)  # the motors give way
        assert robot.move(wanted).x_m > wanted.x_m + 0.01  # it presses still
        sim.inject("push", force_n=[0.0, 0.0, 0.0])
        wait_still(sim)
        assert robot.move(wanted).x_m == pytest.approx(wanted.x_m, abs=2e-3)
        assert robot.contacts == 0  # no retreat
        assert cell.places.latched() is None
