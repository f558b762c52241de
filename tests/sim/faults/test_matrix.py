"""A few cases of the fault matrix for each kind of cell; ``qtopt robot faults`` runs all of them."""

import pytest

from qtopt.apps.robot.faults import run
from robot_bridge.cell.places import STATE_VARIABLE
from sim.faults.cases import named
from tests.robot_bridge.drivers.franka_controller import needs_sim

FEW = {
    "ur": (
        "arm's process: SIGKILL",
        "arm's process: SIGSTOP",
        "safety process: SIGKILL",
        "camera's process: SIGSTOP",
        "protective stop, clearing it said and not done",
        "exposure up by 40 % between the pictures",
        "gripper drops the object on the way",
        "collector on the way down: SIGKILL",
        "collector on the way down: SIGSTOP, SIGCONT after 3 s",
    ),
    "xarm": ("every connection reset", "gripper jammed, open"),
    "so101": ("one servo silent", "arm's process: SIGKILL"),
    "franka": (
        "stream silent, socket open",
        "controller stands still for 2 s",
        "arm's process: SIGSTOP",
        "safety process: SIGKILL",
        "protective stop, collision",
        "20 N on the way down",
        "gripper silent",
        "gripper drops the object on the way",
    ),
}


@pytest.mark.realtime
@pytest.mark.drill
@pytest.mark.timeout(900)
@pytest.mark.parametrize("protocol", [pytest.param(name, marks=[needs_sim] * (name == "franka")) for name in FEW])
def test_faults_end_as_they_must(protocol, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, "")  # each kind of case sets its own; put back afterwards
    findings = list(run(protocol, [named(name) for name in FEW[protocol]]))
    assert [each.case for each in findings] == list(FEW[protocol])
    assert [each.failure for each in findings] == [""] * len(findings)
