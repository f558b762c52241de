"""A policy over the whole path of a cell, beside the plain simulator in the same scene."""

import json
from pathlib import Path

import pytest

import robot_bridge.cells
from robot_bridge.cell.places import STATE_VARIABLE

CELLS = Path(robot_bridge.cells.__file__).parent
pytestmark = [pytest.mark.realtime, pytest.mark.drill, pytest.mark.timeout(600)]


@pytest.mark.parametrize("words", [(), ("--limits-of", CELLS / "ur5e-robotiq.toml")])
def test_both_ways_meet_the_same_scenes(qtopt, tmp_path, monkeypatch, words):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    code, out, err = qtopt("robot", "transfer", "--episodes", 1, "--seed", 3, "--output", tmp_path / "out", *words)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert json.loads(out.splitlines()[-1]) == result, err
    reports = [json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("plain", "path")]
    limits, contact = (reports[1]["path"][name] for name in ("limits", "contact"))
    steps_m = [limits["step_m"], reports[0]["sim"]["cell"]["limits"]["step_xy_m"]]
    assert (steps_m, contact["descend_n"]) == (([0.05, 0.1], 15.0) if words else ([0.1, 0.1], 30.0))
    assert len({(row["index"], row["scene_seed"]) for report in reports for row in report["rows"]}) == 1
    paired = result["plain_minus_path"]
    assert paired["pairs"] + paired["void"] == sum(result["labels"].values()) == 1
    assert code == int(paired["difference"] is None or paired["difference"] > 0.05)


def test_a_run_in_parts_that_was_ended_goes_on(qtopt, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    words = ("robot", "transfer", "--episodes", 2, "--shards", 2, "--seed", 3, "--output", tmp_path / "out")
    qtopt(*words, "--shard", 0, "--output", tmp_path / "out/cells/0")
    first = (tmp_path / "out/cells/0/result.json").stat().st_mtime_ns
    _, out, err = qtopt(*words)
    result = json.loads(out.splitlines()[-1])
    assert (tmp_path / "out/cells/0/result.json").stat().st_mtime_ns == first, err
    assert [row["index"] for row in json.loads((tmp_path / "out/path.json").read_text())["rows"]] == [0, 1]
    assert sum(result["labels"].values()) == 2
    assert len(result["commits"]) == 1
    code, _, err = qtopt(*words, "--retract-m", 0.02)
    assert (code, "other settings" in err) == (2, True), err
