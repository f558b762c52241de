"""The fault matrix as a command: cases against simulated cells, findings to a file, the table into the guide."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from qtopt.apps.hardware import hardware
from qtopt.apps.process import end_on_sigterm, say
from qtopt.apps.robot import Faults, clear_faults, grasp_faults, host_faults
from qtopt.apps.rundir import provenance
from qtopt.durable import write_text
from qtopt.errors import ConfigError
from robot_bridge.cell.launch import prefer
from robot_bridge.cell.places import STATE_VARIABLE
from sim.faults.cases import ALL, CASES, AnyCase, Case, ClearCase, GraspCase, HostCase
from sim.faults.cells import SimulatedCell
from sim.faults.run import Finding, Matrix
from sim.faults.table import placed, table
from sim.faults.told import Told


def main(config: Faults) -> int:
    """Returns 1 where a reaction was not as it must be."""
    names = {case.name for case in CASES}
    unknown = set(config.cases) - names
    if unknown:
        raise ConfigError(f"found the cases {sorted(unknown)}, expected some of {sorted(names)}")
    cases = [case for case in CASES if not config.cases or case.name in config.cases]
    end_on_sigterm()
    prefer()  # the collector's part is this process's, and it waits behind no other program
    failed, facts = False, provenance()  # of the tree before anything is written into it
    for protocol in config.protocols:
        for finding in run(protocol, cases):
            failed = failed or bool(finding.failure)
            if config.output is not None:
                told = _write(config.output, _plain(finding), facts)
                if config.guide is not None:
                    write_text(config.guide, placed(config.guide.read_text(), table(told)))
    return int(failed)


def run(protocol: str, cases: Sequence[AnyCase]) -> Iterator[Finding | Told]:
    """Yields and tells what came of each case that this kind of cell can have."""
    host = f"127.0.95.{10 + ALL.index(protocol)}"
    possible = [case for case in cases if protocol in case.protocols]
    actions = [case for case in possible if isinstance(case, Case)]
    clears = [case for case in possible if isinstance(case, ClearCase)]
    grasps = [case for case in possible if isinstance(case, GraspCase)]
    hosts = [case for case in possible if isinstance(case, HostCase)]
    runs: list[Callable[[Path, str], Iterator[Finding | Told]]] = []
    runs += [partial(_actions, protocol, actions)] * bool(actions)
    runs += [partial(clear_faults.run, protocol, clears)] * bool(clears)
    runs += [partial(grasp_faults.run, protocol, grasps)] * bool(grasps)
    runs += [partial(host_faults.run, protocol, hosts)] * bool(hosts)
    for findings in runs:
        with tempfile.TemporaryDirectory() as directory:
            os.environ[STATE_VARIABLE] = str(Path(directory) / "state")
            began = time.monotonic()
            for finding in findings(Path(directory), host):
                _tell(finding, time.monotonic() - began)
                yield finding
                began = time.monotonic()


def _actions(protocol: str, cases: Sequence[Case], directory: Path, host: str) -> Iterator[Finding]:
    with SimulatedCell(protocol, directory, host) as sim, Matrix(sim) as matrix:
        for case in cases:
            yield matrix.run(case)


def _plain(finding: Finding | Told) -> dict[str, Any]:
    """Returns a finding as JSON has it, which knows no NaN."""
    return {key: None if value != value else value for key, value in asdict(finding).items()}


def _tell(finding: Finding | Told, took_s: float) -> None:
    if isinstance(finding, Told):
        measured = finding.seen
    else:
        measured = (
            f"{finding.label}, {finding.rule or 'no rule'}, stood after {finding.stood_s:.2f} of "
            f"{finding.allowed_s:.2f} s and {1e3 * finding.way_m:.0f} of {1e3 * finding.allowed_m:.0f} mm"
        )
    say(
        f"{finding.failure or 'ok':4} {finding.protocol}, {finding.case}: {measured}; late by {finding.late_s:.2f} s, "
        f"tries {finding.tries}, took {took_s:.0f} s"
    )


def _write(directory: Path, finding: dict[str, Any], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Writes a finding, beside those of other cases and cells that stand there and still exist; returns all of them."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "result.json"
    known = json.loads(path.read_text())["findings"] if path.exists() else []
    new = finding["case"], finding["protocol"]
    run = {"commit": facts["commit"], "command": facts["command"], "hardware": hardware()}
    possible = {(case.name, protocol) for case in CASES for protocol in case.protocols} - {new}
    told = [each for each in known if (each["case"], each["protocol"]) in possible]
    told.append({**finding, "commit": facts["commit"]})
    write_text(path, json.dumps({**run, "findings": told}, indent=1) + "\n")
    return told
