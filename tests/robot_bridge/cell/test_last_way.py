"""An SO-101 has no second way to it: its cell runs all the same, and the end of the arm's process is its stop."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from qtopt.errors import RobotError
from robot_bridge.cell.places import STATE_VARIABLE, Places
from robot_bridge.cell.processes import CellProcesses
from robot_bridge.cell.robot import CellRobot
from robot_bridge.cell_file import load_cell_file
from robot_bridge.robot import ToolPose
from robot_bridge.safety.facts import Phase
from sim.faults.cells import until
from tests.robot_bridge.drivers.so101_cell import Servos, make_cell

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(200)]
TEMPLATE = Path(__file__).resolve().parents[3] / "robot_bridge/cells/so101.toml"


@pytest.fixture(scope="module")
def servos():
    servos = Servos()
    yield servos
    servos.close()


@pytest.fixture
def cell(servos, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    options = make_cell(servos, tmp_path)
    text = TEMPLATE.read_text()
    for key, value in (("port", options.port), ("calibration_file", options.calibration_file), ("dir", tmp_path)):
        text = re.sub(rf'(?m)^{key} = ".*?"', f'{key} = "{value}"', text)
    path = tmp_path / "cell.toml"
    path.write_text(text)
    cell = load_cell_file(path)
    places = Places(cell)
    robot = CellRobot(cell, CellProcesses(path, cell, places))
    yield robot, places
    robot.close()


def under_way(servos, robot):
    """Starts a slow motion to the side; returns its thread and what it raised, once the pan servo turns."""
    robot.enter(Phase.TRANSIT)
    here, raised = robot.state().tool, []

    def go():
        try:
            robot.move(ToolPose(here.x_m, here.y_m + 0.08, here.z_m, here.yaw_rad))
        except RobotError as error:
            raised.append(str(error))

    thread = threading.Thread(target=go)
    thread.start()
    start = servos.ask()["positions"][0]
    assert until(lambda: abs(servos.ask()["positions"][0] - start) > 15, 20.0), raised
    return thread, raised


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.drill)])
def test_the_end_of_the_arms_process_is_a_standing_arm_and_a_lock(servos, cell, number):
    robot, places = cell
    thread, raised = under_way(servos, robot)
    os.kill(robot.processes.arm.pid, number)
    assert until(lambda: robot.processes.arm.poll() is not None, 3.0)
    stood = servos.ask()["positions"]
    thread.join(30)
    assert raised
    assert until(lambda: (latch := places.latched()) is not None and latch.rule == "arm_process", 3.0)
    time.sleep(0.4)
    assert servos.ask()["positions"] == pytest.approx(stood, abs=14), "some 3 mm at the tool"
    assert robot.processes.arm.wait(5.0) == -signal.SIGKILL
