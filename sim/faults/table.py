"""The table of what came of the faults, for docs/safety.md, from nothing but the committed findings."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sim.faults.cases import ALL, CASES, AnyCase, Case, ClearCase, GraspCase, HostCase

BEGIN: Final = "<!-- from docs/results/faults/result.json by qtopt robot faults: begin -->"
END: Final = "<!-- end -->"
_KINDS: Final = (
    (Case, "fault in the middle of an action"),
    (ClearCase, "in a cell that may clear it without a person"),
    (GraspCase, "fault while a grasp is made and judged"),
    (HostCase, "fault of the computer"),
)
_REACTIONS: Final = {
    "nothing": "none",
    "hold": "stands",
    "stop": "stands, episode aborted",
    "latch": "stands, locked",
    "any": "goes on, or stands locked",
}


def table(findings: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table for each kind of fault: a row for each, a column for each kind of cell, what was found there."""
    found = {(each["case"], each["protocol"]): each for each in findings}
    protocols = [each for each in ALL if any(protocol == each for _, protocol in found)]
    tables = []
    for kind, head in _KINDS:
        lines = [
            f"| {head} | must happen | label | {' | '.join(protocols)} |",
            f"|---|---|---|{'---|' * len(protocols)}",
        ]
        for case in CASES:
            if isinstance(case, kind):
                cells = [
                    _cell(case, found.get((case.name, protocol))) if protocol in case.protocols else ""
                    for protocol in protocols
                ]
                lines.append(f"| {case.name} | {_must(case)} | {_label(case)} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def placed(document: str, rows: str) -> str:
    """Returns the document with the table between its markers. Raises ValueError where it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"found no markers in the document, expected {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{rows}\n{END}{after}"


def _label(case: AnyCase) -> str:
    if isinstance(case, GraspCase):
        return " or ".join(each.replace("_", " ") for each in case.labels)
    if isinstance(case, ClearCase):
        return "aborted"
    return "" if isinstance(case, HostCase) else case.label


def _must(case: AnyCase) -> str:
    if isinstance(case, (ClearCase, HostCase)):
        return case.must
    if isinstance(case, GraspCase):
        return "no label that is not true" if case.labels != ("unknown",) else "no success, no failure"
    if case.grips:
        return "the fingers go back"
    must = _REACTIONS[case.reaction]
    if case.rises:
        must = "stands, is led up" + (", episode aborted" if case.label == "aborted" else "")
    return must if must == "none" else f"{must}; braking within {case.within_s:g} s"


def _cell(case: AnyCase, finding: Mapping[str, Any] | None) -> str:
    if finding is None:
        return "not run"
    if finding["failure"]:
        return f"**failed: {finding['failure']}**"
    if not isinstance(case, Case):
        return str(finding["seen"])
    if case.reaction == "any" and finding["label"] == "goes on":
        return "went on"
    if case.grips:
        return "they went back"
    if case.reaction == "nothing" and not case.rises:
        return "as if nothing had been"
    rule = f"`{finding['rule']}`, " if finding["rule"] else ""
    return f"{rule}stood after {finding['stood_s']:.2f} s and {1e3 * finding['way_m']:.0f} mm"
