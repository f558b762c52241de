"""What an evaluation found: in a few lines for people, or as one JSON object for programs."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from qtopt.apps.process import say
from qtopt.loops.metrics import wilson
from qtopt.loops.report import Report, success_of_report
from qtopt.types import JsonValue

STANDARD_OUTPUT = Path("-")


def tell(values: Mapping[str, JsonValue], where: Path | None, words: Callable[[], str]) -> None:
    """Says ``words``, and writes ``values`` as one JSON object to a file; ``-`` has it said instead of the words."""
    if where == STANDARD_OUTPUT:
        say(json.dumps(values))
        return
    if where is not None:
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(json.dumps(values) + "\n")
    say(words())


def describe(report: Report) -> str:
    """Returns what a report tells: what was evaluated, success with its interval, failures by kind."""
    outcomes = ((name, count) for name, count in _inner(report, "outcomes").items() if name != "success")
    failures = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in outcomes)
    lines = [f"{report['policy']} policy, step {report['step']}, {report['objects']} objects, seed {report['seed']}"]
    lines += _describe_emptying(_inner(report, "emptying")) if "emptying" in report else []
    of = "of single attempts " if "emptying" in report else ""
    lines += [
        f"success {of}{success_of_report(report)}, 95 % Wilson interval",
        f"steps per grasp {report['steps_per_grasp']}",
        f"failures: {failures}",
        f"written to {report['file']}",
    ]
    return "\n".join([*lines, "TRAINING OBJECTS: not a figure to report"] if report["objects"] == "train" else lines)


def _describe_emptying(figures: Mapping[str, JsonValue]) -> list[str]:
    removed = wilson(int(str(figures["removed"])), int(str(figures["objects"])))
    marks = ", ".join(f"{mark}: {share}" for mark, share in _inner(figures, "share_removed_after").items())
    spread = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in _inner(figures, "over_bins").items())
    return [
        f"objects removed {removed}, 95 % Wilson interval over objects",
        f"share removed over bins: {spread}",
        f"share removed after attempts {marks}; bins emptied {figures['bins_emptied']} of {figures['bins']}",
    ]


def _inner(values: Mapping[str, JsonValue], name: str) -> dict[str, JsonValue]:
    inner = values[name]
    return inner if isinstance(inner, dict) else {}
