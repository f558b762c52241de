"""Numbers to draw, from the files that runs and evaluations leave."""

import json
from pathlib import Path
from typing import Any

from qtopt.apps.rundir import RunDirectory
from qtopt.errors import ConfigError
from qtopt.loops.figures.curve import Result
from qtopt.loops.figures.history import Curve, curve_of
from qtopt.loops.report import read_report, rows_of


def read_curve(root: Path) -> Curve:
    """Returns the learning curve of the run in ``root``; nothing is written there."""
    directory = RunDirectory(root)
    if not directory.metrics.exists():
        raise ConfigError(
            f"{root}: found no metrics.jsonl in it, expected the directory of a run, outputs/<job>/<time>"
        )
    return curve_of(root.name, directory.read_metrics())


def read_result(path: Path) -> Result:
    """Returns the final evaluation told in a JSON file: ``grasps``, ``final_success``, ``interval`` and ``seeds``.

    Raises:
        ConfigError: it is no such file.
    """
    try:
        found: Any = json.loads(path.read_text())
        low, high = found["interval"]
        seeds = found["seeds"]
        return Result(
            str(found.get("name", path.stem)),
            float(found["grasps"]),
            float(found["final_success"]),
            (float(low), float(high)),
            len(seeds) if isinstance(seeds, list) else int(seeds),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read as a result ({error!r}), expected JSON with grasps, final_success, "
            "interval [low, high] and seeds"
        ) from error


def learned_reports(root: Path) -> tuple[Path, ...]:
    """Returns the reports with which the run's Q is judged: its final evaluation, or else the newest networks' longest.

    Raises:
        ConfigError: there is none.
    """
    evaluations = RunDirectory(root).evaluations
    final = evaluations / "final-learned.json"
    if final.exists():
        return (final,)
    found = {path: read_report(path) for path in evaluations.glob("learned-*.json")}
    reports = {path: report for path, report in found.items() if report["objects"] == "unseen"}
    if not reports:
        raise ConfigError(
            f"{evaluations}: found no report of the learned policy, expected one; evaluate with qtopt eval"
        )
    return (max(reports, key=lambda path: (int(str(reports[path]["step"])), len(rows_of(reports[path])), path.name)),)
