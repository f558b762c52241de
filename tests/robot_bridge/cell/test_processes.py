"""The collector of a cell is killed, frozen or ended while the arm moves or stands, and a lock outlives everybody.

``sim.faults`` does the same to the arm's and the safety process, in the middle of an episode.
"""

import contextlib
import json
import math
import signal
import subprocess
import sys
import time

import pytest

from qtopt.errors import RobotError
from qtopt.specs import CLOSE, make_action
from robot_bridge.cell.places import STATE_VARIABLE, Places
from robot_bridge.cell.processes import CellProcesses
from robot_bridge.cell.robot import CellRobot
from robot_bridge.cell_file import load_cell_file
from robot_bridge.robot import ToolPose
from robot_bridge.safety.facts import Phase
from sim.faults.cells import SimulatedCell, until
from sim.faults.lateness import Lateness
from tests.robot_bridge.cell.cells import end_all, processes_of, wait_still

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(300)]
SPEED_M_S = 0.05
REACTION_S = 0.3
STOPPING_M = 0.003
"""Braking from 5 cm/s, and what the simulated motors lag behind."""


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    with SimulatedCell("ur", tmp_path_factory.mktemp("sim"), "127.0.91.4", SPEED_M_S) as sim:
        yield sim


@pytest.fixture
def places(sim, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    yield Places(load_cell_file(sim.path))
    left = not until(lambda: not processes_of(sim.path), 30.0)
    end_all(processes_of(sim.path))  # not to be in the next test's way
    assert not left, "processes were left behind"


@contextlib.contextmanager
def coming_to_stand(sim, reaction_s=REACTION_S):
    """Asserts how far the tool goes from the block on: as the reaction time allows, and as this machine is late."""
    with Lateness() as lateness:
        before = sim.truth()
        yield
        after = wait_still(sim)
    gone_m = math.dist(before["tool"][:3], after["tool"][:3])
    allowed_m = SPEED_M_S * (reaction_s + lateness.most_s) + STOPPING_M
    assert gone_m <= allowed_m, f"{gone_m * 1e3:.1f} mm"
    assert after["width_m"] == pytest.approx(before["width_m"], abs=1e-3)


def test_a_lock_outlives_the_processes_until_a_person_acknowledges(sim, places):
    cell = load_cell_file(sim.path)
    places.latch("estop", "for the test")
    robot = CellRobot(cell, CellProcesses(sim.path, cell, places))
    with coming_to_stand(sim, 0.0), contextlib.closing(robot):
        with pytest.raises(RobotError, match="estop"):
            robot.enter(Phase.TRANSIT)
        with pytest.raises(RobotError, match="estop"):
            robot.grip(close=True)
    places.latch_file.acknowledge("the test", "nothing was wrong")
    robot = CellRobot(cell, CellProcesses(sim.path, cell, places))
    try:
        robot.enter(Phase.TRANSIT)
        assert robot.move(ToolPose(0.6, 0.0, 0.3, 0.0)).x_m == pytest.approx(0.6, abs=0.01)
    finally:
        robot.close()


def test_what_was_said_last_is_known_after_the_processes_have_ended(sim, places):
    def last():
        return processes.last_report(), processes.safety_report()

    with contextlib.closing(CellProcesses(sim.path, load_cell_file(sim.path), places)) as processes:
        assert until(lambda: all(each and each.arm for each in last()), 5.0)
    with pytest.raises(RobotError, match="has ended"):
        processes.report()
    assert all(each.arm for each in last())


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.drill), signal.SIGTERM]
)
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
        assert until(lambda: abs(sim.truth()["twist"][0]) > 0.02, 60.0)
        # A frozen collector is noticed after ``collector_hold_s``.
        with coming_to_stand(sim, 0.9 if number == signal.SIGSTOP else REACTION_S):
            collector.send_signal(number)
        others = lambda: [each for each in processes_of(sim.path) if each.pid != collector.pid]  # noqa: E731
        assert until(lambda: not others(), 60.0), "arm or safety process outlived the collector"
    finally:
        collector.kill()
        collector.wait()
    wait_still(sim)


@pytest.mark.drill
@pytest.mark.parametrize("close", [False, True])
def test_what_a_frozen_collector_had_chosen_is_not_done_when_it_goes_on(sim, places, close):
    code = (
        "import json, os, signal, sys; from pathlib import Path; from qtopt.specs import make_action;"
        "from robot_bridge.cell.open import PhysicalCell; cell = PhysicalCell(Path(sys.argv[1]), 72);"
        "cell.start_episode(0); away = -1.0 if cell.robot.state().tool.y_m > 0 else 1.0;"
        f"action = make_action((0.0, 0.0, 0.0) if {close} else (0.0, 0.04 * away, 0.0), close={close});"
        "print('chosen', flush=True); os.kill(os.getpid(), signal.SIGSTOP);"
        "results = [cell.act(action) for _ in range(2)];"
        "print(json.dumps([each.executed.tolist() for each in results]), flush=True);"
        "print(json.dumps([cell.robot.holds, *(each.outcome is None for each in results)]), flush=True); cell.close()"
    )
    collector = subprocess.Popen([sys.executable, "-c", code, str(sim.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert collector.stdout.readline() == "chosen\n"
        time.sleep(1.5)
        collector.send_signal(signal.SIGCONT)
        first, second = json.loads(collector.stdout.readline())
        assert first == pytest.approx(make_action().tolist(), abs=2e-3), "held: neither moved nor gripped"
        assert second[CLOSE] == close
        assert close or abs(second[1]) == pytest.approx(0.04, abs=5e-3)
        assert json.loads(collector.stdout.readline()) == [1, True, True]
        assert collector.wait(30.0) == 0
    finally:
        collector.kill()
        collector.wait()
        collector.stdout.close()
