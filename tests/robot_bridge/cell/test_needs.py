"""A cell whose gripper cannot say how wide it is open would call every held object a failure: it does not start."""

import json
import re
from pathlib import Path

import pytest

from qtopt.apps.robot import Check, check
from qtopt.errors import ConfigError
from robot_bridge.cell.places import STATE_VARIABLE, Places
from robot_bridge.cell.processes import CellProcesses
from robot_bridge.cell_file import load_cell_file
from tests.robot_bridge.cell.cells import processes_of

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(120)]
TEMPLATE = Path(__file__).resolve().parents[3] / "robot_bridge/cells/http.toml"


@pytest.fixture
def path(serve, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    served = serve(blind=True)
    text = TEMPLATE.read_text()
    for key, value in (("url", served.options().url), ("token_file", served.token_file), ("dir", tmp_path)):
        text = re.sub(rf'(?m)^{key} = ".*?"', f'{key} = "{value}"', text)
    path = tmp_path / "cell.toml"
    path.write_text(text)
    return path


def test_a_gripper_that_tells_no_width_is_refused_by_whatever_opens_the_cell(path):
    cell = load_cell_file(path)
    with pytest.raises(ConfigError, match="missing: gripper_width"):
        CellProcesses(path, cell, Places(cell))
    assert not processes_of(path)


def test_check_names_it(path, capsys):
    check.main(Check(path, json=True))
    seen = {row["name"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert seen["arm, gripper"]["code"] == check.CONFIG
    assert "missing: gripper_width" in seen["arm, gripper"]["seen"]
