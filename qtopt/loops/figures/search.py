"""Where the cross-entropy method looked: its candidates and the action chosen, drawn where they lead."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.patheffects import withStroke

from qtopt.config import CameraConfig
from qtopt.loops.figures.style import DPI, INK, RED, new_figure, save, styled
from qtopt.specs import CLOSE, OPEN, ROTATION_COS, ROTATION_SIN, TERMINATE
from qtopt.types import FloatArray, UInt8Array

Array = npt.NDArray[np.float64]
FINGER_M = 0.05
"""Half the opening between the fingers."""
PLACE_M = 0.02
"""Height above the floor at which places are marked: about the middle of an object."""
_COLOURS = "viridis"
_TITLES = ("first population: uniform", "second: fitted to the elites", "chosen", "Q of closing at each place")
_KEY = "circles move, triangles also switch the gripper; rings: elites; the segment joins the fingers"


@dataclass(frozen=True)
class QMap:
    """Q of closing at each place, at one azimuth and height.

    Attributes:
        x_m: (X,), in the base frame.
        y_m: (Y,).
        q: (X, Y) in [0, 1].
    """

    x_m: Array
    y_m: Array
    q: Array


@dataclass(frozen=True)
class SearchScene:
    """One search to draw.

    Attributes:
        image: the scene before the action, RGB uint8 (H, H, 3).
        tool_pose: (4,), x, y, z [m] and azimuth [rad] of the tool then.
        populations: candidates (N, 8) and their Q (N,), for each iteration.
        elites: best candidates that the next population is fitted to.
        action: float32 (8,), the action chosen.
        value: its Q.
        closing: Q of closing around the tool.
        caption: written at the side.
    """

    image: UInt8Array
    tool_pose: FloatArray
    populations: tuple[tuple[FloatArray, FloatArray], ...]
    elites: int
    action: FloatArray
    value: float
    closing: QMap
    caption: str


def to_pixels(camera: CameraConfig, points_m: Array) -> Array:
    """Returns where points (K, 3) [m, base frame] are seen: column and row [px], (K, 2)."""
    seen = np.hstack([points_m, np.ones((len(points_m), 1))]) @ camera.projection().T
    pixels: Array = seen[:, :2] / seen[:, 2:]
    return pixels


def draw_search(scenes: Sequence[SearchScene], camera: CameraConfig, path: Path, title: str, dpi: int = DPI) -> None:
    """Draws a row of four pictures for each scene as PNG; ``camera`` is that of the images."""
    with styled():
        figure = new_figure(10.0, 0.75 + 2.3 * len(scenes))
        rows = figure.subplots(len(scenes), len(_TITLES), squeeze=False)
        low, high = _range(scenes)
        for scene, row in zip(scenes, rows, strict=True):
            for axes in row:
                _show(axes, scene.image)
            for axes, population in zip(row[:2], scene.populations[:2], strict=False):
                dots = _draw_population(axes, camera, scene, population, (low, high))
            _draw_chosen(row[2], camera, scene)
            _draw_map(row[3], camera, scene, (low, high))
            row[0].set_ylabel(scene.caption, fontsize=9)
        for axes, words in zip(rows[0], _TITLES, strict=True):
            axes.set_title(words, fontsize=9.5, fontweight="normal")
        bar = figure.colorbar(dots, ax=rows, shrink=0.6, aspect=40, pad=0.01)
        bar.set_label("Q")
        bar.outline.set_visible(False)
        figure.suptitle(f"{title}\n{_KEY}", fontsize=10, x=0.02, horizontalalignment="left")
        save(figure, path, dpi)


def _range(scenes: Sequence[SearchScene]) -> tuple[float, float]:
    """Returns tenths that enclose every Q drawn: one scale for all pictures."""
    drawn = np.concatenate(
        [scene.closing.q.ravel() for scene in scenes] + [q for s in scenes for _, q in s.populations]
    )
    return math.floor(10 * float(drawn.min())) / 10, math.ceil(10 * float(drawn.max())) / 10


def _show(axes: Axes, image: UInt8Array) -> None:
    size = len(image)
    faded = (0.62 * image + 0.38 * 255).astype(np.uint8)
    axes.imshow(faded, extent=(0, size, size, 0))
    axes.set_xlim(0, size)
    axes.set_ylim(size, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_population(
    axes: Axes,
    camera: CameraConfig,
    scene: SearchScene,
    population: tuple[FloatArray, FloatArray],
    clim: tuple[float, float],
) -> PathCollection:
    actions, q = population
    pixels = to_pixels(camera, _places(scene.tool_pose, actions))
    order = np.argsort(q)
    closes = actions[:, CLOSE] + actions[:, OPEN] > 0.5
    dots = None
    for marker, chosen, size in (("o", ~closes, 16.0), ("v", closes, 26.0)):
        index = order[chosen[order]]
        dots = axes.scatter(
            pixels[index, 0], pixels[index, 1], c=q[index], cmap=_COLOURS, vmin=clim[0], vmax=clim[1], s=size,
            marker=marker, linewidths=0.4, edgecolors="white", zorder=3,
        )  # fmt: skip
    best = order[-scene.elites :]
    axes.scatter(pixels[best, 0], pixels[best, 1], s=62, facecolors="none", edgecolors=RED, linewidths=1.3, zorder=4)
    assert dots is not None
    return dots


def _draw_chosen(axes: Axes, camera: CameraConfig, scene: SearchScene) -> None:
    ends = to_pixels(camera, fingers(scene.tool_pose, scene.action))
    place = to_pixels(camera, _places(scene.tool_pose, scene.action[None]))
    here = to_pixels(camera, _places(scene.tool_pose, np.zeros((1, 8), np.float32)))
    axes.plot(*np.concatenate([here, place]).T, color=INK, linewidth=1.0, linestyle=":", zorder=3)
    axes.scatter(here[:, 0], here[:, 1], s=18, color=INK, zorder=3)
    _segment(axes, ends)
    axes.scatter(place[:, 0], place[:, 1], s=26, color=RED, edgecolors="white", linewidths=0.8, zorder=6)
    axes.text(
        0.03, 0.04, f"{describe(scene.action)}, Q {scene.value:.2f}", transform=axes.transAxes, fontsize=9,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )  # fmt: skip


def _draw_map(axes: Axes, camera: CameraConfig, scene: SearchScene, clim: tuple[float, float]) -> None:
    grid = scene.closing
    x, y = np.meshgrid(grid.x_m, grid.y_m, indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, PLACE_M)], 1)
    columns, rows = to_pixels(camera, points).T.reshape(2, *x.shape)
    axes.pcolormesh(
        columns, rows, grid.q, cmap=_COLOURS, vmin=clim[0], vmax=clim[1], shading="gouraud", alpha=0.78, zorder=2
    )
    _segment(axes, to_pixels(camera, fingers(scene.tool_pose, scene.action)))
    axes.text(
        0.03, 0.04, f"highest {grid.q.max():.2f}", transform=axes.transAxes, fontsize=9,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )  # fmt: skip


def _segment(axes: Axes, ends: Array) -> None:
    axes.plot(
        *ends.T, color=RED, linewidth=2.4, marker="s", markersize=4.5, zorder=5,
        path_effects=[withStroke(linewidth=4.2, foreground="white")],
    )  # fmt: skip


def fingers(tool_pose: FloatArray, action: FloatArray) -> Array:
    """Returns where the open fingers come down, (2, 3) [m, base frame], after ``action`` (8,) from ``tool_pose``."""
    azimuth = tool_pose[3] + np.arctan2(action[ROTATION_SIN], action[ROTATION_COS])
    apart = FINGER_M * np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    middle = _places(tool_pose, action[None])[0]
    return np.stack([middle - apart, middle + apart])


def describe(action: FloatArray) -> str:
    """Returns what an action does besides moving: close, open, end, or move."""
    words = [word for word, index in (("close", CLOSE), ("open", OPEN), ("end", TERMINATE)) if action[index] > 0.5]
    return " ".join(words) or "move"


def _places(tool_pose: FloatArray, actions: FloatArray) -> Array:
    """Returns the places (K, 3) [m] near the floor under the tool after each action (K, 8)."""
    xy = tool_pose[:2].astype(np.float64) + actions[:, :2]
    return np.hstack([xy, np.full((len(xy), 1), PLACE_M)])
