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

from qtopt.errors import ConfigError
from qtopt.loops.figures.style import BLUE, DPI, GREEN, GREY, RED, new_figure, percent_axis, save, styled
from qtopt.loops.metrics import wilson
from qtopt.specs import MAX_STEPS
from qtopt.types import JsonValue

Array = npt.NDArray[np.float64]
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

    def calibration_error(self, bins: int) -> float:
        """Expected calibration error: distance of mean value and success in each bin, weighted by episodes."""
        place = bin_of(self.value, bins)
        gaps = [abs(self.value[place == each].sum() - self.success[place == each].sum()) for each in range(bins)]
        return float(sum(gaps) / len(self.value))


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


def bin_of(value: Array, bins: int) -> npt.NDArray[np.int64]:
    """Returns which of ``bins`` equal parts of [0, 1] each value lies in; 1 belongs to the last."""
    return np.minimum((value * bins).astype(np.int64), bins - 1)


def draw_calibration(predictions: Predictions, path: Path, *, name: str = "", bins: int = 10, dpi: int = DPI) -> None:
    """Draws reliability diagram and histogram as PNG."""
    base = wilson(int(predictions.success.sum()), len(predictions.success))
    with styled():
        figure = new_figure(7.5, 6.6)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1.0))
        above.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (5, 2)), linewidth=1.3, label="Q equals the success rate")
        above.axhline(base.rate, color=GREY, linewidth=0.9, linestyle=":", label=f"success of all: {base}")
        place = bin_of(predictions.value, bins)
        for number in range(bins):
            inside = place == number
            if inside.any():
                rate = wilson(int(predictions.success[inside].sum()), int(inside.sum()))
                mean = float(predictions.value[inside].mean())
                above.errorbar(
                    [mean],
                    [rate.rate],
                    yerr=[[max(0.0, rate.rate - rate.low)], [max(0.0, rate.high - rate.rate)]],
                    fmt="o",
                    color=BLUE,
                    markersize=4 + 9 * np.sqrt(rate.trials / len(place)),
                    elinewidth=1.3,
                    capsize=3,
                    alpha=0.9,
                )
        above.errorbar([], [], [], fmt="o", color=BLUE, label="episodes of a bin, 95 % Wilson interval")
        percent_axis(above, "episodes that succeeded")
        above.set_xlim(-0.01, 1.01)
        above.legend(loc="upper left")
        brier, guess = predictions.brier, base.rate * (1 - base.rate)
        above.set_title(f"Is Q a probability? {name}".rstrip())
        above.text(
            0.985,
            0.04,
            f"{len(place)} episodes\nBrier score {brier:.3f} (always {base.rate:.2f}: {guess:.3f})\n"
            f"expected calibration error {predictions.calibration_error(bins):.3f}",
            transform=above.transAxes,
            horizontalalignment="right",
            fontsize=9.5,
            bbox={"facecolor": "white", "edgecolor": "#CCCCCC", "boxstyle": "round,pad=0.5"},
        )
        edges = np.linspace(0, 1, bins + 1)
        held, missed = (predictions.value[predictions.success == good] for good in (True, False))
        below.hist([held, missed], edges, stacked=True, color=[GREEN, RED], rwidth=0.92, label=["held", "not held"])
        below.set_yscale("symlog", linthresh=5)
        below.yaxis.set_major_formatter(lambda count, _: f"{count:.0f}")
        below.set_ylabel("episodes")
        below.set_xlabel(
            "Q of the action that ended the episode; unlike earlier values it is not discounted"
            + (f"\n{predictions.left_out} episodes left out: step limit or fault" if predictions.left_out else "")
        )
        below.legend(loc="upper left")
        save(figure, path, dpi)


def _max_steps(report: Mapping[str, JsonValue]) -> int:
    sim: Any = report.get("sim") or {}
    return int(sim.get("cell", {}).get("max_steps", MAX_STEPS))
