"""The table of what came of the faults, for docs/safety.md, from nothing but the committed findings."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sim.faults.cases import ALL, CASES, Case

BEGIN: Final = "<!-- from docs/results/faults/result.json by qtopt robot faults: begin -->"
END: Final = "<!-- end -->"
_REACTIONS: Final = {
    "nothing": "none",
    "hold": "stands",
    "stop": "stands, episode aborted",
    "latch": "stands, locked",
}


def table(findings: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table: a row for each fault, a column for each kind of cell, what was measured in its cells."""
    found = {(each["case"], each["protocol"]): each for each in findings}
    protocols = [each for each in ALL if any(protocol == each for _, protocol in found)]
    lines = [
        f"| fault in the middle of an action | must happen | label | {' | '.join(protocols)} |",
        f"|---|---|---|{'---|' * len(protocols)}",
    ]
    for case in CASES:
        cells = [
            _cell(case, found.get((case.name, protocol))) if protocol in case.protocols else ""
            for protocol in protocols
        ]
        lines.append(f"| {case.name} | {_must(case)} | {case.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def placed(document: str, rows: str) -> str:
    """Returns the document with the table between its markers. Raises ValueError where it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"found no markers in the document, expected {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{rows}\n{END}{after}"


def _must(case: Case) -> str:
    must = _REACTIONS[case.reaction]
    if case.rises:
        must = "stands, is led up" + (", episode aborted" if case.reaction == "stop" else "")
    return must if must == "none" else f"{must}; braking within {case.within_s:g} s"


def _cell(case: Case, finding: Mapping[str, Any] | None) -> str:
    if finding is None:
        return "not run"
    if finding["failure"]:
        return f"**failed: {finding['failure']}**"
    if case.reaction == "nothing" and not case.rises:
        return "as if nothing had been"
    rule = f"`{finding['rule']}`, " if finding["rule"] else ""
    return f"{rule}stood after {finding['stood_s']:.2f} s and {1e3 * finding['way_m']:.0f} mm"
