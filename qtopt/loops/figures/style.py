"""How every figure looks: colours that colour-blind readers can tell apart, sizes that suit a README."""

import io
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito (2008)
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, GREY, INK = "#56B4E9", "#CC79A7", "#8A8A8A", "#222222"
DPI = 120
MOST_BYTES = 300_000
_STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
}


def new_figure(width_in: float, height_in: float) -> Figure:
    """Returns an empty figure; draw in it within ``styled()``."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


def styled() -> AbstractContextManager[None]:
    """Returns a context in which matplotlib draws as all figures here are drawn."""
    return mpl.rc_context(_STYLE)


def percent_axis(axes: Axes, label: str) -> None:
    """Makes the y axis a share from 0 to 100 %."""
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "20", "40", "60", "80", "100 %"])
    axes.set_ylabel(label)


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Draws a figure as PNG."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, facecolor="white")
    save_image(Image.open(drawn).convert("RGB"), path)


def save_image(image: Image.Image, path: Path) -> None:
    """Writes an RGB image as PNG; one that would be large gets a palette of 256 colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
