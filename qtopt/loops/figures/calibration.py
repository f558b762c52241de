"""Does Q mean what it says? The value of the action that ended an episode against what came of it.

Q is discounted by each step that is still to come, so most values are no probabilities. The value of the action that
ends an episode is: nothing follows it, its label is the outcome alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from qtopt.errors import ConfigError
from qtopt.loops.figures.style import BLUE, DPI, GREY, RED, SKY, new_figure, percent_axis, save, styled
from qtopt.loops.metrics import wilson
from qtopt.specs import MAX_STEPS
from qtopt.types import JsonValue

Array = npt.NDArray[np.float64]
_LOW, _HIGH = 0.001, 0.9999
"""What is drawn of [0, 1] on an axis of log odds; values beyond stand at the ends."""
_TICKS = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_JUDGED = ("success", "nothing_grasped", "dropped", "timed_out")


@dataclass(frozen=True)
class Predictions:
    """Values of ending actions, (N,) in [0, 1], whether each episode succeeded, bool (N,), and episodes left out."""

    value: Array
    success: npt.NDArray[np.bool_]
    left_out: int

    @property
    def brier(self) -> float:
        """Mean squared difference between value and outcome."""
        return float(np.mean((self.value - self.success) ** 2))

    def groups(self, count: int) -> list[npt.NDArray[np.int64]]:
        """Returns the episodes by rising value in ``count`` groups that differ in size by one at most; none empty.

        Values crowd near 1, where parts of equal width would put nearly all episodes into one.
        """
        split = np.array_split(np.argsort(self.value, kind="stable"), count)
        return [group for group in split if len(group)]

    def calibration_error(self, count: int) -> float:
        """Expected calibration error: distance of mean value and success in each group, weighted by episodes."""
        gaps = [abs(float(self.value[group].sum() - self.success[group].sum())) for group in self.groups(count)]
        return sum(gaps) / len(self.value)


def predictions_of(reports: Sequence[Mapping[str, JsonValue]]) -> Predictions:
    """Returns what the learned policy predicted in the episodes of ``reports`` that it ended itself.

    Episodes that reached the step limit are left out: their last action need not have been to end.

    Raises:
        ConfigError: no episode is left.
    """
    value, success, left_out = [], [], 0
    for report in reports:
        limit = _max_steps(report)
        rows: Any = report.get("rows", [])
        for row in rows:
            if row["outcome"] not in _JUDGED or row.get("last_value") is None or row["steps"] >= limit:
                left_out += 1
                continue
            value.append(float(row["last_value"]))
            success.append(row["outcome"] == "success")
    if not value:
        raise ConfigError(
            "calibration: found no episode that a learned policy ended, expected reports of qtopt eval with rows; "
            "give eval/*.json of a run, not final.json"
        )
    return Predictions(np.array(value), np.array(success), left_out)


def draw_calibration(predictions: Predictions, path: Path, *, bins: int = 8, dpi: int = DPI) -> None:
    """Draws reliability diagram, in ``bins`` groups of equal size, and histogram as PNG."""
    with styled():
        figure = new_figure(7.5, 6.4)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.0, 1.0))
        low = max(_LOW, min(0.5, 0.8 * float(predictions.value.min())))
        _draw_groups(above, predictions, bins, low)
        _draw_histogram(below, predictions, low)
        below.set_xlim(low, _HIGH)
        figure.suptitle("Is Q the chance to succeed?", fontsize=12, fontweight="bold", x=0.02, ha="left")
        save(figure, path, dpi)


def _draw_groups(axes: Axes, predictions: Predictions, bins: int, low: float) -> None:
    base = wilson(int(predictions.success.sum()), len(predictions.success))
    line = 1 / (1 + np.exp(-np.linspace(np.log(low / (1 - low)), np.log(_HIGH / (1 - _HIGH)), 200)))
    axes.plot(line, line, color=GREY, linestyle=(0, (5, 2)), linewidth=1.4, label="Q is the chance")
    axes.axhline(base.rate, color=GREY, linewidth=1.0, linestyle=":", label=f"all together: {base}")
    groups = predictions.groups(bins)
    rates = [wilson(int(predictions.success[group].sum()), len(group)) for group in groups]
    axes.errorbar(
        _clip([float(predictions.value[group].mean()) for group in groups]),
        [each.rate for each in rates],
        yerr=np.array([[each.rate - each.low, each.high - each.rate] for each in rates]).T.clip(min=0.0),
        fmt="o-",
        color=BLUE,
        markersize=7,
        linewidth=1.2,
        elinewidth=1.4,
        capsize=3,
        label=f"{len(groups)} groups of about {len(groups[0])} episodes, 95 % Wilson",
    )
    percent_axis(axes, "episodes that succeeded")
    axes.set_ylim(0.0, 1.04)
    axes.legend(loc="lower right")
    axes.set_title(
        f"{base.trials} episodes on unseen objects\nBrier score {predictions.brier:.3f} "
        f"(a constant {base.rate:.2f} would score {base.rate * (1 - base.rate):.3f}); "
        f"expected calibration error {predictions.calibration_error(bins):.3f}",
        fontsize=9.5,
        fontweight="normal",
    )


def _draw_histogram(axes: Axes, predictions: Predictions, low: float) -> None:
    ends = np.log(np.array([low, _HIGH]) / (1 - np.array([low, _HIGH])))
    edges = 1 / (1 + np.exp(-np.linspace(float(ends[0]), float(ends[1]), 25)))
    held, missed = (_clip(predictions.value[predictions.success == good]) for good in (True, False))
    axes.hist([missed, held], edges.tolist(), stacked=True, color=[RED, SKY], rwidth=0.9, label=["not held", "held"])
    axes.set_xscale("logit")
    axes.set_xticks(shown := [q for q in _TICKS if q >= low], [f"{q:g}" for q in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("episodes")
    left_out = predictions.left_out
    axes.set_xlabel(
        "Q of the action that ended the episode: nothing follows it, so unlike all others it is not discounted"
        + (f"\n({left_out} episodes at the step limit or ended by a fault are left out)" if left_out else ""),
        fontsize=9,
    )
    axes.legend(loc="upper left")


def _clip(values: npt.ArrayLike) -> Array:
    return np.clip(np.asarray(values, np.float64), _LOW, _HIGH)


def _max_steps(report: Mapping[str, JsonValue]) -> int:
    sim: Any = report.get("sim") or {}
    return int(sim.get("cell", {}).get("max_steps", MAX_STEPS))
