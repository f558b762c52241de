"""The processes of a Franka's cell, with franky-sim as its controller: whatever fails, the arm in the simulator stands.

What is measured is the arm in franky-sim, which runs at a part of real time: times and ways are those of a clock on
the wall, on which such an arm is slower than it was told to be, never faster.
"""

import math
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
from tests.robot_bridge.drivers.franka_controller import Controller, needs_sim, wait_for

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(300), needs_sim]
TEMPLATE = Path(__file__).resolve().parents[3] / "robot_bridge/cells/fr3-hand.toml"
SPEED_M_S = 0.05
BRAKE_M_S2 = 0.5
SLACK_M = 0.003
STAYS_M = 0.001
ROOM = {
    "host": '"127.31.5.1"\nrealtime = false',
    "inner_min_m": "[0.20, -0.30]",
    "inner_max_m": "[0.60, 0.30]",
    "watchdog_period_s": "0.01",
}
DEAD = ("arm_process", "mode_lost", "link_lost", "state_age")


@pytest.fixture(scope="module")
def controller():
    pytest.importorskip("franky", reason="franky-control is not installed: pip install qtopt[franka]")
    controller = Controller("127.31.5.1")
    yield controller
    controller.close()


@pytest.fixture
def cell(controller, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    controller.ask(mode="kIdle", force=[0.0] * 6)
    text = TEMPLATE.read_text().replace("rim_z_m = 0.10", "rim_z_m = 0.10\nabove_m = 0.60")
    for key, value in (*ROOM.items(), ("dir", f'"{tmp_path}"')):
        text = re.sub(rf"(?m)^{key} = [^#\n]*", f"{key} = {value}  ", text)
    path = tmp_path / "cell.toml"
    path.write_text(text)
    found = load_cell_file(path)
    places = Places(found)
    robot = CellRobot(found, CellProcesses(path, found, places))
    yield robot, places
    os.kill(controller.process.pid, signal.SIGCONT)
    robot.close()
    controller.ask(mode="kIdle", force=[0.0] * 6)


class Motion:
    """A slow motion to the side, under way when this has been made; and what became of it."""

    def __init__(self, controller, robot):
        self._controller = controller
        robot.enter(Phase.TRANSIT)
        here = robot.state().tool
        away = -0.15 if here.y_m > 0 else 0.15
        self.raised = []
        self._thread = threading.Thread(target=self._go, args=(robot, here, away))
        start = self.place()
        self._thread.start()
        wait_for(lambda: math.dist(self.place(), start) > 0.01, 60.0)

    def _go(self, robot, here, away):
        try:
            robot.move(ToolPose(here.x_m, here.y_m + away, here.z_m, here.yaw_rad))
        except RobotError as error:
            self.raised.append(str(error))

    def place(self):
        return self._controller.ask()["position_m"]

    def ends(self, before, within_s):
        """Checks that the arm stood, no farther than braking after ``within_s`` allows, and stays there."""
        self._thread.join(60.0)
        assert self.raised, "the motion was not aborted"
        time.sleep(0.5)
        stood = self.place()
        assert math.dist(stood, before) < SPEED_M_S * within_s + SPEED_M_S**2 / (2 * BRAKE_M_S2) + SLACK_M
        time.sleep(1.0)
        assert math.dist(self.place(), stood) < STAYS_M, "it moved by itself afterwards"


@pytest.mark.parametrize(
    ("who", "what", "within_s", "rules"),
    [
        ("arm", signal.SIGKILL, 0.3, DEAD),
        ("arm", signal.SIGSEGV, 0.3, DEAD),
        ("arm", signal.SIGSTOP, 0.35, DEAD),
        ("safety", signal.SIGKILL, 0.3, ("safety_process",)),
        ("safety", signal.SIGSTOP, 0.65, ("safety_process",)),
    ],
)
def test_a_process_that_dies_or_freezes(controller, cell, who, what, within_s, rules):
    robot, places = cell
    motion = Motion(controller, robot)
    before = motion.place()
    os.kill(getattr(robot.processes, who).pid, what)
    motion.ends(before, within_s)
    wait_for(lambda: (latch := places.latched()) is not None and latch.rule in rules, 4.0)


@pytest.mark.parametrize(
    ("fault", "rules"),
    [
        ({"mode": "kReflex"}, ("reflex",)),
        ({"mode": "kUserStopped"}, ("safeguard_stop", "emergency_stop")),
        ({"force": [0.0, 0.0, 80.0, 0.0, 0.0, 0.0]}, ("contact_latch",)),
    ],
)
def test_a_stop_of_its_own_and_a_force(controller, cell, fault, rules):
    robot, places = cell
    motion = Motion(controller, robot)
    before = motion.place()
    controller.ask(**fault)
    motion.ends(before, 0.3)
    wait_for(lambda: (latch := places.latched()) is not None and latch.rule in rules, 4.0)


def test_a_controller_that_stands_still_for_two_seconds(controller, cell):
    robot, places = cell
    motion = Motion(controller, robot)
    before = motion.place()
    os.kill(controller.process.pid, signal.SIGSTOP)
    time.sleep(2.0)
    os.kill(controller.process.pid, signal.SIGCONT)
    motion.ends(before, 0.35)
    wait_for(lambda: (latch := places.latched()) is not None and latch.rule in DEAD, 4.0)


def test_it_is_led_up_out_of_what_presses_on_it(controller, cell):
    robot, places = cell
    robot.enter(Phase.EPISODE)
    here = robot.state().tool
    pressed = []

    def press():
        wait_for(lambda: controller.ask()["position_m"][2] < here.z_m - 0.01, 60.0)
        pressed.append(controller.ask(force=[0.0, 0.0, 30.0, 0.0, 0.0, 0.0])["position_m"])
        wait_for(lambda: controller.ask()["position_m"][2] > pressed[0][2] + 0.01, 60.0)
        controller.ask(force=[0.0] * 6)

    thread = threading.Thread(target=press)
    thread.start()
    reached = robot.move(ToolPose(here.x_m, here.y_m, here.z_m - 0.15, here.yaw_rad))
    thread.join(60.0)
    assert places.latched() is None
    stood = controller.ask()["position_m"]
    assert stood[2] - pressed[0][2] > 0.02, "of the 30 mm that lead out"
    assert math.dist(stood[:2], pressed[0][:2]) < 0.005
    assert reached.z_m == pytest.approx(stood[2], abs=0.002)
