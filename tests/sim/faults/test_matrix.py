"""A few cases of the fault matrix for each kind of cell; ``qtopt robot faults`` runs all of them."""

import pytest

from robot_bridge.cell.places import STATE_VARIABLE
from sim.faults.cases import named
from sim.faults.cells import SimulatedCell
from sim.faults.run import Matrix

pytestmark = [pytest.mark.realtime, pytest.mark.drill, pytest.mark.timeout(300)]
FEW = {
    "ur": ("arm's process: SIGKILL", "arm's process: SIGSTOP", "safety process: SIGKILL"),
    "xarm": ("every connection reset",),
}


@pytest.mark.parametrize(("protocol", "host"), [("ur", "127.0.91.1"), ("xarm", "127.0.91.2")])
def test_faults_end_as_they_must(protocol, host, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    with SimulatedCell(protocol, tmp_path, host) as sim, Matrix(sim) as matrix:
        findings = [matrix.run(named(name)) for name in FEW[protocol]]
    assert [each.failure for each in findings] == [""] * len(findings)
