"""The files an evaluation leaves: JSON with every episode, and a page of filmstrips."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from qtopt.durable import write_text
from qtopt.loops.emptying import removed_of, summarise_emptying
from qtopt.loops.evaluate import Evaluated, summarise
from qtopt.loops.filmstrip import filmstrip, page, save_png
from qtopt.loops.metrics import Proportion, wilson
from qtopt.loops.retry import Stop
from qtopt.types import JsonValue, UInt8Array

Report = dict[str, JsonValue]


def record(
    evaluated: Iterable[Evaluated], path: Path, facts: Mapping[str, JsonValue], *, filmstrips: int, stop: Stop
) -> Report:
    """Writes ``path`` (JSON) and ``filmstrips/<its name>.png`` beside it; returns the report.

    An evaluation that was told to stop leaves no files.

    Args:
        evaluated: the episodes as they come.
        path: the JSON file.
        facts: what was evaluated: policy, step, objects, seed.
        filmstrips: episodes drawn at most, half of them failures where there are enough.
        stop: says whether the evaluation was cut short.
    """
    rows: list[dict[str, JsonValue]] = []
    strips: dict[bool, list[UInt8Array]] = {True: [], False: []}
    for one in evaluated:
        rows.append(one.to_json())
        kept = strips[one.episode.success]
        if len(kept) < filmstrips:
            value = rows[-1]["last_value"]
            asked = "" if value is None else f", Q {value}"
            kept.append(filmstrip(one.episode, f"{one.index}: {rows[-1]['outcome']}, {len(one.episode)} steps{asked}"))
    if stop():
        return _report(rows, facts)
    chosen = _balance(strips, filmstrips)
    if chosen:
        save_png(page(chosen), path.parent / "filmstrips" / f"{path.stem}.png")
    return write_report(rows, facts, path)


def write_report(rows: Sequence[dict[str, JsonValue]], facts: Mapping[str, JsonValue], path: Path) -> Report:
    """Writes the report of these episodes as JSON, whole or not at all; returns it."""
    report = _report(rows, facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(report, indent=1) + "\n")
    return report


def merge(reports: Sequence[Report], path: Path) -> Report:
    """Puts the reports of an evaluation's shards together, ordered by episode."""
    rows = [row for report in reports for row in rows_of(report)]
    rows.sort(key=lambda row: int(str(row["index"])))
    own = {"rows", "emptying", *summarise(rows)}
    facts = {key: value for key, value in reports[0].items() if key not in own}
    if "file" in facts:
        facts["file"] = str(path)
    return write_report(rows, facts, path)


def read_report(path: Path) -> Report:
    """Returns a report written by ``write_report``."""
    report: Report = json.loads(path.read_text())
    return report


def success_of_report(report: Mapping[str, JsonValue]) -> Proportion:
    """Returns the success that a report tells, with its interval."""
    return wilson(int(str(report["successes"])), int(str(report["episodes"])))


def headline(report: Report) -> Report:
    """Returns what a program wants of a report: ``success`` with its ``interval`` and what it is the success of.

    With the protocol ``emptying`` success is the share of objects removed, and ``episodes`` counts attempts.
    """
    emptying = report.get("protocol") == "emptying"
    success = removed_of(rows_of(report)) if emptying else success_of_report(report)
    told: Report = {
        "success": round(success.rate, 4) if success.trials else None,
        "interval": [round(success.low, 4), round(success.high, 4)],
        "trials": success.trials,
    }
    kept = (
        "episodes", "objects", "protocol", "seed", "checkpoint", "policy", "step",
        "steps_per_grasp", "outcomes", "aborted", "emptying", "file",
    )  # fmt: skip
    return told | {name: report[name] for name in kept if name in report}


def rows_of(report: Report) -> list[dict[str, JsonValue]]:
    """Returns the episodes of a report."""
    rows = report["rows"]
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _report(rows: Sequence[dict[str, JsonValue]], facts: Mapping[str, JsonValue]) -> Report:
    emptying = {"emptying": summarise_emptying(rows)} if facts.get("protocol") == "emptying" else {}
    return {**facts, **summarise(rows), **emptying, "rows": list(rows)}


def _balance(strips: Mapping[bool, list[UInt8Array]], most: int) -> list[UInt8Array]:
    good = strips[True][: max(most // 2, most - len(strips[False]))]
    return good + strips[False][: most - len(good)]
