"""The run as the user sees it: a table that is redrawn in a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from qtopt.loops.metrics import Every, Proportion

Row = dict[str, float]
PLAIN_EVERY_S = 10.0


def gather(figures: Mapping[str, Mapping[str, float]], stats: Mapping[str, float]) -> Row:
    """Puts the roles' figures into one flat row: ``trainer/loss``, sums over collectors and updaters, ``server/...``.

    Args:
        figures: by role, as the roles reported them.
        stats: the store's figures.
    """
    row: Row = {f"server/{name}": value for name, value in stats.items()}
    for role, values in figures.items():
        row.update({f"{role}/{name}": value for name, value in values.items()})
    for kind, summed, averaged in (
        ("collector", ("episodes", "episodes_per_s", "spooled"), ("success_recent", "share_outside")),
        ("updater", ("labels", "labels_per_s"), ("mean_target", "share_waiting")),
    ):
        members = [values for role, values in figures.items() if role.startswith(f"{kind}/")]
        for name in summed:
            row[f"{kind}/{name}"] = sum(values.get(name, 0.0) for values in members)
        for name in averaged:
            known = [values[name] for values in members if math.isfinite(values.get(name, math.nan))]
            row[f"{kind}/{name}"] = sum(known) / len(known) if known else math.nan
    return row


def collectors(row: Row) -> dict[str, float]:
    """Returns the policy version on each collector."""
    return {
        key.split("/")[1]: value
        for key, value in row.items()
        if key.startswith("collector/") and key.endswith("/policy_version")
    }


class Display:
    """Shows rows; use as a context manager."""

    def __init__(self, title: str) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._title = title
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._plain = Every(PLAIN_EVERY_S, at_once=True)
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def update(self, row: Row, minutes: float, of: float, success: Mapping[str, Proportion], waits: str) -> None:
        """Shows the newest row.

        Args:
            row: what ``gather`` returned.
            minutes: time since the start [min].
            of: length of the run [min].
            success: newest evaluation of each policy.
            waits: who waits for whom.
        """
        if self._live is not None:
            self._live.update(_table(self._title, row, minutes, of, success, waits), refresh=True)
        elif self._plain.due():
            self.say(_line(row, minutes, success, waits))

    def __enter__(self) -> "Display":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def _cells(row: Row, success: Mapping[str, Proportion], waits: str) -> Sequence[tuple[str, str]]:
    def show(key: str, form: str = ",.0f") -> str:
        value = row.get(key, math.nan)
        return format(value, form) if math.isfinite(value) else "-"

    versions = "  ".join(f"{name}: {version:.0f}" for name, version in sorted(collectors(row).items())) or "-"
    recent = row.get("collector/success_recent", math.nan)
    return (
        ("grasps collected", f"{show('collector/episodes')}  ({show('collector/episodes_per_s', '.2f')}/s)"),
        ("success, last collected", f"{100 * recent:.1f} %" if math.isfinite(recent) else "-"),
        ("success, scripted, unseen objects", str(success.get("scripted", "-"))),
        ("success, learned, unseen objects", str(success.get("learned", "-"))),
        ("gradient steps", f"{show('trainer/step')}  ({show('trainer/steps_per_s', '.1f')}/s)"),
        ("loss", show("trainer/loss", ".4f")),
        ("labels", f"{show('updater/labels')}  ({show('updater/labels_per_s', '.0f')}/s)"),
        ("label age", f"{show('trainer/label_age_s', '.1f')} s, {show('trainer/label_lag', '.1f')} versions"),
        ("replay size", f"{show('server/episodes')} episodes, {show('server/transitions')} transitions"),
        ("policy version on each collector", versions),
        ("episodes waiting on collectors", show("collector/spooled")),
        ("collectors outside physics and images", f"{show('collector/share_outside', '.1%')} of their time"),
        ("who waits for whom", waits or "-"),
    )


def _table(title: str, row: Row, minutes: float, of: float, success: Mapping[str, Proportion], waits: str) -> Table:
    table = Table(title=f"{title}   {minutes:.1f} of {of:g} min", show_header=False, min_width=78)
    table.add_column(style="bold")
    table.add_column()
    for name, value in _cells(row, success, waits):
        table.add_row(name, value)
    return table


def _line(row: Row, minutes: float, success: Mapping[str, Proportion], waits: str) -> str:
    return f"[{minutes:5.1f} min] " + " | ".join(f"{name}: {value}" for name, value in _cells(row, success, waits))


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``row`` without values that are not numbers, which JSON has no word for; figures to six digits."""
    return {
        key: float(f"{value:.6g}") if isinstance(value, float) else value
        for key, value in row.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
