"""What ``calibrate`` prints is put into a cell file that knows nothing, and makes the cell ready."""

import re
import tomllib

import pytest

from robot_bridge.cell.places import STATE_VARIABLE
from sim.faults.cells import SimulatedCell

pytestmark = [pytest.mark.realtime, pytest.mark.drill, pytest.mark.timeout(1200)]


def measured(qtopt, path, what, repeats):
    """Runs a calibration, and puts the lines that it prints into the cell file; returns them as tables."""
    code, out, err = qtopt("robot", "calibrate", path, what, "--repeats", repeats)
    assert code == 0, err
    tables = tomllib.loads(out)
    text = path.read_text()
    for table, values in tables.items():
        for key, value in values.items():
            line = f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
            text = re.sub(rf"(?m)^{key} = .*\n", "", text)
            assert text.count(f"[{table}]\n") == 1
            text = text.replace(f"[{table}]\n", f"[{table}]\n{line}\n")
    path.write_text(text)
    return tables


def test_a_cell_that_knows_nothing_is_made_ready(qtopt, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    with SimulatedCell("ur", tmp_path, "127.0.92.9", speed_m_s=0.4, options=()) as sim:
        text = re.sub(r"(?m)^(calibrated|diff_area_px|closed_empty_width_m) = .*\n", "", sim.path.read_text())
        sim.path.write_text(text)
        assert qtopt("robot", "check", sim.path)[0] == 6
        gripper = measured(qtopt, sim.path, "gripper", 20)
        assert 0.0 <= gripper["grasp"]["closed_empty_width_m"] < 0.002
        assert gripper["success"]["width_margin_m"] < 0.004
        success = measured(qtopt, sim.path, "success", 50)["success"]
        assert 15 <= success["diff_t"] < 60
        assert success["diff_area_px"] < 200, "smaller than what an object of 1 cm covers"
        code, out, _ = qtopt("robot", "check", sim.path)
        assert code == 0, out
