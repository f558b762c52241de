"""The fault matrix as a command: cases against simulated cells, findings to a file, the table into the guide."""

import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qtopt.apps.hardware import hardware
from qtopt.apps.process import end_on_sigterm, say
from qtopt.apps.robot import Faults
from qtopt.apps.rundir import provenance
from qtopt.errors import ConfigError
from robot_bridge.cell.launch import prefer
from robot_bridge.cell.places import STATE_VARIABLE
from sim.faults.cases import ALL, CASES, Case
from sim.faults.cells import SimulatedCell
from sim.faults.run import Finding, Matrix
from sim.faults.table import placed, table


def main(config: Faults) -> int:
    """Returns 1 where a reaction was not as it must be."""
    names = {case.name for case in CASES}
    unknown = set(config.cases) - names
    if unknown:
        raise ConfigError(f"found the cases {sorted(unknown)}, expected some of {sorted(names)}")
    cases = [case for case in CASES if not config.cases or case.name in config.cases]
    end_on_sigterm()
    prefer()  # the collector's part is this process's, and it waits behind no other program
    findings = [each for protocol in config.protocols for each in _run(protocol, cases)]
    if config.output is not None:
        told = _write(config.output, [_plain(each) for each in findings])
        if config.guide is not None:
            config.guide.write_text(placed(config.guide.read_text(), table(told)))
    return int(any(each.failure for each in findings))


def _run(protocol: str, cases: list[Case]) -> list[Finding]:
    findings, host = [], f"127.0.95.{10 + ALL.index(protocol)}"
    with tempfile.TemporaryDirectory() as directory:
        os.environ[STATE_VARIABLE] = directory
        with SimulatedCell(protocol, Path(directory), host) as sim, Matrix(sim) as matrix:
            for case in cases:
                if protocol in case.protocols:
                    began = time.monotonic()
                    findings.append(matrix.run(case))
                    _tell(findings[-1], time.monotonic() - began)
    return findings


def _plain(finding: Finding) -> dict[str, Any]:
    """Returns a finding as JSON has it, which knows no NaN."""
    return {key: None if value != value else value for key, value in asdict(finding).items()}


def _tell(finding: Finding, took_s: float) -> None:
    measured = (
        f"stood after {finding.stood_s:.2f} of {finding.allowed_s:.2f} s and {1e3 * finding.way_m:.0f} of "
        f"{1e3 * finding.allowed_m:.0f} mm"
    )
    say(
        f"{finding.failure or 'ok':4} {finding.protocol}, {finding.case}: {finding.label}, "
        f"{finding.rule or 'no rule'}, {measured}; late by {finding.late_s:.2f} s, "
        f"tries {finding.tries}, took {took_s:.0f} s"
    )


def _write(directory: Path, findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Writes the findings, beside those of other cases and cells that stand there; returns all of them."""
    directory.mkdir(parents=True, exist_ok=True)
    path, facts = directory / "result.json", provenance()
    known = json.loads(path.read_text())["findings"] if path.exists() else []
    new = {(each["case"], each["protocol"]) for each in findings}
    run = {"commit": facts["commit"], "command": facts["command"], "hardware": hardware()}
    told = [each for each in known if (each["case"], each["protocol"]) not in new]
    told += [{**each, "commit": facts["commit"]} for each in findings]
    path.write_text(json.dumps({**run, "findings": told}, indent=1) + "\n")
    return told
