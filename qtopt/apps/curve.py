"""The picture of a run: success and loss over time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure


def draw(rows: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draws a run as PNG.

    Args:
        rows: the lines of metrics.jsonl; ``minutes``, ``trainer/loss``, ``collector/success_recent`` are used.
        evaluations: the evaluations' JSON, with ``minutes`` and ``policy`` added.
        path: file to write.
        title: written above.
    """
    mpl.use("agg")
    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for policy, colour in (("scripted", "tab:grey"), ("learned", "tab:blue")):
        chosen = [e for e in evaluations if e["policy"] == policy and e.get("success") is not None]
        if not chosen:
            continue
        minutes = [e["minutes"] for e in chosen]
        rates = [100 * e["success"] for e in chosen]
        low = [rate - 100 * e["wilson_95"][0] for rate, e in zip(rates, chosen, strict=True)]
        high = [100 * e["wilson_95"][1] - rate for rate, e in zip(rates, chosen, strict=True)]
        above.errorbar(
            minutes, rates, yerr=[low, high], fmt="o-", color=colour, capsize=3, label=f"{policy}, unseen objects"
        )
    _line(above, rows, "collector/success_recent", "collected, training objects", scale=100.0)
    above.set_ylabel("success [%], 95 % interval")
    above.set_ylim(0, 100)
    above.set_title(title)
    above.legend(loc="upper left")
    _line(below, rows, "trainer/loss", "loss")
    below.set_ylabel("cross-entropy")
    below.set_xlabel("minutes")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _line(axes: Any, rows: Sequence[Mapping[str, Any]], key: str, label: str, scale: float = 1.0) -> None:
    points = [(row["minutes"], scale * row[key]) for row in rows if row.get(key) is not None and "minutes" in row]
    if points:
        axes.plot(*zip(*points, strict=True), color="tab:orange", label=label)
