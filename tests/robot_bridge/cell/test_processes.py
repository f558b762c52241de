"""Every process of a cell is killed, frozen or ended while the arm moves; what the simulator then shows is asserted."""

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from qtopt.errors import RobotError
from robot_bridge.cell.places import STATE_VARIABLE, Places
from robot_bridge.cell.processes import CellProcesses
from robot_bridge.cell.robot import CellRobot
from robot_bridge.cell_file import load_cell_file
from robot_bridge.robot import ToolPose
from robot_bridge.safety.facts import Phase
from tests.robot_bridge.cell.cells import Lateness, SimCell, end_all, processes_of, wait_still, wait_until

pytestmark = [pytest.mark.serial, pytest.mark.timeout(300)]
SPEED_M_S = 0.05
FAR = ToolPose(0.75, 0.20, 0.30, 0.0)
NEAR = ToolPose(0.50, -0.20, 0.30, 0.0)
REACTION_S = 0.3
STOPPING_M = 0.003
"""Braking from 5 cm/s, and what the simulated motors lag behind."""


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    sim = SimCell(tmp_path_factory.mktemp("sim"), "127.0.91.1")
    text = re.sub(r"(?m)^((?:slow_)?speed_m_s) = .*$", rf"\1 = {SPEED_M_S}", sim.path.read_text())
    sim.path.write_text(text)
    yield sim
    sim.close()


@pytest.fixture
def places(sim, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    yield Places(load_cell_file(sim.path))
    assert wait_until(lambda: not processes_of(sim.path), 30.0), "processes were left behind"


@pytest.fixture
def robot(sim, places):
    cell = load_cell_file(sim.path)
    robot = CellRobot(cell, CellProcesses(sim.path, cell, places))
    yield robot
    robot.close()
    end_all(processes_of(sim.path))


def under_way(sim, robot):
    """Has the robot move from afar; returns the thread, what it raised, and the truth while it moves."""
    robot.enter(Phase.TRANSIT)
    target = NEAR if sim.truth()["tool"][0] > 0.62 else FAR
    raised = []

    def go():
        try:
            robot.move(target)
        except RobotError as error:
            raised.append(str(error))

    thread = threading.Thread(target=go)
    thread.start()
    assert wait_until(lambda: abs(sim.truth()["twist"][0]) > 0.02), "the arm did not set off"
    return thread, raised, sim.truth()


def check_stands(sim, before, reaction_s=REACTION_S):
    """Asserts how far the tool went on: as far as the reaction time allows, and as this machine was late meanwhile."""
    began = time.monotonic()
    with Lateness() as lateness:
        after = wait_still(sim)
    gone_m = math.dist(before["tool"][:3], after["tool"][:3])
    allowed_m = SPEED_M_S * (reaction_s + lateness.most_s) + STOPPING_M
    assert gone_m <= allowed_m, f"{gone_m * 1e3:.1f} mm, at rest after {time.monotonic() - began:.2f} s"
    assert after["width_m"] == pytest.approx(before["width_m"], abs=1e-3)
    return after


@pytest.mark.parametrize(
    ("number", "who", "rules", "reaction_s"),
    [
        (signal.SIGKILL, "arm", ("arm_process",), REACTION_S),
        (signal.SIGSEGV, "arm", ("arm_process",), REACTION_S),
        # The controller's own watchdog may be quicker than ours to notice a frozen process.
        (signal.SIGSTOP, "arm", ("arm_process", "program_stopped"), REACTION_S),
        (signal.SIGKILL, "safety", ("safety_process",), REACTION_S),
        (signal.SIGSTOP, "safety", ("safety_process",), 0.6),
    ],
)
def test_a_process_that_dies_or_freezes_stops_the_arm_and_locks_it(sim, places, robot, number, who, rules, reaction_s):
    thread, raised, before = under_way(sim, robot)
    os.kill(getattr(robot.processes, who).pid, number)
    check_stands(sim, before, reaction_s)
    thread.join(30)
    assert raised
    assert wait_until(lambda: places.latched() is not None)
    assert places.latched().rule in rules
    with pytest.raises(RobotError):
        robot.move(FAR)
    check_stands(sim, sim.truth())


def test_a_lock_outlives_the_processes_until_a_person_acknowledges(sim, places):
    cell = load_cell_file(sim.path)
    places.latch("estop", "for the test")
    robot = CellRobot(cell, CellProcesses(sim.path, cell, places))
    before = sim.truth()
    with pytest.raises(RobotError, match="estop"):
        robot.enter(Phase.TRANSIT)
    with pytest.raises(RobotError, match="estop"):
        robot.grip(close=True)
    robot.close()
    check_stands(sim, before)
    places.latch_file.acknowledge("the test", "nothing was wrong")
    robot = CellRobot(cell, CellProcesses(sim.path, cell, places))
    robot.enter(Phase.TRANSIT)
    assert robot.move(ToolPose(0.6, 0.0, 0.3, 0.0)).x_m == pytest.approx(0.6, abs=0.01)
    robot.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_collector_that_dies_or_freezes_leaves_the_arm_standing(sim, places, number):
    code = (
        "import sys; from pathlib import Path; from robot_bridge.cell_file import load_cell_file;"
        "from robot_bridge.cell.places import Places; from robot_bridge.cell.processes import CellProcesses;"
        "from robot_bridge.cell.robot import CellRobot; from robot_bridge.robot import ToolPose;"
        "from robot_bridge.safety.facts import Phase; path = Path(sys.argv[1]); cell = load_cell_file(path);"
        "robot = CellRobot(cell, CellProcesses(path, cell, Places(cell))); robot.enter(Phase.TRANSIT);"
        "[robot.move(ToolPose(x, 0.0, 0.3, 0.0)) for x in (0.5, 0.75) * 50]"
    )
    collector = subprocess.Popen([sys.executable, "-c", code, str(sim.path)])
    try:
        assert wait_until(lambda: abs(sim.truth()["twist"][0]) > 0.02, 60.0)
        before = sim.truth()
        collector.send_signal(number)
        # A frozen collector is noticed after ``collector_hold_s``.
        check_stands(sim, before, 0.9 if number == signal.SIGSTOP else REACTION_S)
        others = lambda: [each for each in processes_of(sim.path) if each.pid != collector.pid]  # noqa: E731
        assert wait_until(lambda: not others(), 60.0), "arm or safety process outlived the collector"
    finally:
        collector.kill()
        collector.wait()
    time.sleep(0.5)
    wait_still(sim)
