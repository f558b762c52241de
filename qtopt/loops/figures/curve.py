"""Success on unseen objects against grasps collected, beside what others published."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes

from qtopt.loops.figures.history import Curve, common_grid, resample, scripted_of
from qtopt.loops.figures.peers import PEERS
from qtopt.loops.figures.style import (
    BLUE,
    DPI,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    new_figure,
    percent_axis,
    save,
    styled,
)

_PEERS_LOOK = ((ORANGE, "s", "-"), (PURPLE, "^", "-"), (PURPLE, "v", ":"), (RED, "*", "-"))


@dataclass(frozen=True)
class Result:
    """A final evaluation: name, grasps collected, success and its interval, all shares in [0, 1]; seeds in it."""

    name: str
    grasps: float
    success: float
    interval: tuple[float, float]
    seeds: int


def draw_curve(
    curves: Sequence[Curve],
    results: Sequence[Result],
    path: Path,
    *,
    scale: Literal["log", "linear"] = "log",
    dpi: int = DPI,
) -> None:
    """Draws the curve as PNG: one run with each evaluation's interval, several as mean and range over the seeds."""
    with styled():
        figure = new_figure(9.0, 5.6)
        axes = figure.subplots()
        _draw_peers(axes)
        _draw_scripted(axes, curves)
        if len(curves) == 1:
            _draw_one(axes, curves[0])
        elif curves:
            _draw_many(axes, curves)
        for result in results:
            _draw_result(axes, result)
        _finish(axes, curves, results, scale)
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=2.4, fontsize=8.5
        )
        save(figure, path, dpi)


def _draw_one(axes: Axes, curve: Curve) -> None:
    rates = curve.rates
    low = rates - [each.low for each in curve.success]
    high = [each.high for each in curve.success] - rates
    axes.errorbar(
        curve.grasps,
        rates,
        yerr=np.stack([low, high]).clip(min=0.0),
        fmt="o-",
        color=BLUE,
        markersize=5.5,
        linewidth=1.8,
        elinewidth=1.0,
        capsize=2.5,
        zorder=5,
        label=f"qtopt, one run; {_trials(curve)} episodes an evaluation, 95 % Wilson",
    )


def _draw_many(axes: Axes, curves: Sequence[Curve]) -> None:
    grid = common_grid(curves)
    rates = np.stack([resample(curve, grid) for curve in curves])
    for curve in curves:
        axes.plot(curve.grasps, curve.rates, color=BLUE, alpha=0.35, linewidth=0.9, zorder=4)
    axes.fill_between(grid, rates.min(0), rates.max(0), color=BLUE, alpha=0.18, linewidth=0, zorder=3)
    axes.plot(grid, rates.mean(0), color=BLUE, linewidth=2.4, zorder=5, label=f"qtopt, mean of {len(curves)} seeds")
    axes.fill_between([], [], [], color=BLUE, alpha=0.18, label="qtopt, from the lowest to the highest seed")


def _draw_scripted(axes: Axes, curves: Sequence[Curve]) -> None:
    scripted = scripted_of(curves)
    if scripted.trials:
        axes.axhspan(scripted.low, scripted.high, color=GREY, alpha=0.15, linewidth=0, zorder=1)
        axes.axhline(
            scripted.rate,
            color=GREY,
            linestyle=(0, (5, 2)),
            linewidth=1.5,
            zorder=2,
            label=f"scripted policy that ours starts from, {scripted}",
        )


def _draw_peers(axes: Axes) -> None:
    for peer, (colour, marker, line) in zip(PEERS, _PEERS_LOOK, strict=True):
        grasps, success = zip(*peer.points, strict=True)
        axes.plot(
            grasps,
            success,
            color=colour,
            marker=marker,
            linestyle=line,
            linewidth=1.0,
            markersize=10 if marker == "*" else 7,
            markerfacecolor="white" if peer.task == "real" else colour,
            markeredgewidth=1.3,
            alpha=0.9,
            zorder=3,
            label=peer.label,
        )


def _draw_result(axes: Axes, result: Result) -> None:
    low, high = result.interval
    axes.errorbar(
        [result.grasps],
        [result.success],
        yerr=[[max(0.0, result.success - low)], [max(0.0, high - result.success)]],
        fmt="D",
        color=GREEN,
        markersize=6.5,
        elinewidth=1.6,
        capsize=4,
        zorder=6,
        label=f"{result.name}: {100 * result.success:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        + (f", {result.seeds} seeds" if result.seeds > 1 else ""),
    )


def _finish(axes: Axes, curves: Sequence[Curve], results: Sequence[Result], scale: str) -> None:
    percent_axis(axes, "success on unseen objects")
    axes.set_xlabel("grasps collected" + (" (log scale)" if scale == "log" else ""))
    first = min([float(curve.grasps[0]) for curve in curves] + [result.grasps for result in results] + [10_000.0])
    if scale == "log":
        axes.set_xscale("log")
        axes.set_xlim(max(1.0, 0.7 * first), 1.4e6)
        axes.grid(visible=False, which="minor")
    else:
        axes.set_xlim(0.0, 1.05e6)
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.set_title("Success on unseen objects against grasps collected")
    axes.text(
        0.0,
        -0.17,
        "Others measured on their own objects, cameras and rewards: their points show the scale of the problem, "
        "not a ranking.",
        transform=axes.transAxes,
        fontsize=8.5,
        color=INK,
        alpha=0.75,
        verticalalignment="top",
    )


def _short(count: float) -> str:
    return f"{count / 1e6:g}M" if count >= 1e6 else f"{count / 1e3:g}k" if count >= 1e3 else f"{count:g}"


def _trials(curve: Curve) -> str:
    counts = sorted({each.trials for each in curve.success})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
