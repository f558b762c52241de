"""The table in docs/safety.md is that of the committed findings, and says where a reaction failed."""

import json
from pathlib import Path

import pytest

from sim.faults.cases import CASES, named
from sim.faults.table import BEGIN, END, placed, table

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def result():
    return json.loads((ROOT / "docs/results/faults/result.json").read_text())


def test_the_guide_has_the_table_of_the_committed_findings(result):
    guide = (ROOT / "docs/safety.md").read_text()
    assert placed(guide, table(result["findings"])) == guide, "run qtopt robot faults --guide docs/safety.md"


def test_every_case_was_run_and_none_failed(result):
    possible = {(case.name, protocol) for case in CASES for protocol in case.protocols}
    assert {(each["case"], each["protocol"]) for each in result["findings"]} == possible
    assert [each for each in result["findings"] if each["failure"]] == []


def test_what_was_not_run_is_told():
    rows = table(
        [{"case": "emergency stop", "protocol": "xarm", "failure": "", "rule": "", "stood_s": 1.0, "way_m": 0.0}]
    )
    assert "| not run |" in next(line for line in rows.splitlines() if line.startswith("| stream silent"))
    assert next(line for line in rows.splitlines() if line.startswith("| safeguard")).endswith("|  |")


def test_a_failure_stands_in_the_table():
    case = named("emergency stop")
    finding = {"case": case.name, "protocol": "ur", "failure": "it went on by 90 mm", "rule": "", "stood_s": 1.0}
    row = next(line for line in table([finding]).splitlines() if line.startswith(f"| {case.name}"))
    assert "**failed: it went on by 90 mm**" in row


def test_each_kind_of_fault_has_a_table_of_its_own():
    case = named("gripper jammed, open")
    seen = "unknown after 3 s: nothing new lies in the bin; in truth not held"
    told = {"case": case.name, "protocol": "ur", "failure": "", "seen": seen}
    tables = table([told]).split("\n\n")
    assert len(tables) == 4
    row = next(line for line in tables[2].splitlines() if line.startswith(f"| {case.name}"))
    assert row.endswith(f"| unknown or aborted or nothing grasped | {seen} |")


def test_a_document_without_markers_is_refused():
    assert placed(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="no markers"):
        placed("nothing here", "new")


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)
