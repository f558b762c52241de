"""What ``status`` says of a cell that does not run."""

from pathlib import Path

import robot_bridge.cells
from qtopt.apps.robot.status import describe
from robot_bridge.cell.places import STATE_VARIABLE, Places
from robot_bridge.cell_file import load_cell_file

FILE = Path(robot_bridge.cells.__file__).parent / "ur5e-robotiq.toml"
EPISODE = "0000000000000000001_00000000-0000-4000-8000-000000000000.safetensors"


def test_what_waits_and_what_cannot_be_delivered_is_counted(tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    spool = tmp_path / "spool"
    (spool / "quarantine").mkdir(parents=True)
    path = tmp_path / "cell.toml"
    path.write_text(FILE.read_text().replace("/var/lib/qtopt/lab-a-ur5e/spool", str(spool)))
    cell = load_cell_file(path)
    lines = describe(cell, Places(cell))
    assert f"spool      0 episodes wait in {spool}" in lines
    assert not [line for line in lines if line.startswith("set aside")]
    (spool / EPISODE).touch()
    (spool / "quarantine" / EPISODE).touch()
    lines = describe(cell, Places(cell))
    assert f"spool      1 episodes wait in {spool}" in lines
    assert [line.split(",")[0] for line in lines if line.startswith("set aside")] == [
        "set aside  1 episodes in quarantine there"
    ]
