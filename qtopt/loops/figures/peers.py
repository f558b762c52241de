"""What others published, with how it was measured: points to compare with, none of them on our objects."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Published:
    """Success that somebody published.

    Attributes:
        label: who, and how it was measured.
        points: (grasps, success in [0, 1]).
        task: ``kuka`` is Quillen et al.'s simulated KUKA with procedural objects, nearest to ours; ``real`` are seven
            KUKA arms with household objects.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    task: Literal["kuka", "real"]


PEERS = (
    Published(
        "Quillen et al. 2018, simulated KUKA, read off their figure",
        ((10_000, 0.50), (100_000, 0.70), (1_000_000, 0.90)),
        "kuka",
    ),
    Published(
        "its rerun by Sony's nnabla-rl: best of 400 checkpoints",
        ((10_000, 0.68), (100_000, 0.76), (1_000_000, 0.78)),
        "kuka",
    ),
    Published(
        "its rerun by Sony's nnabla-rl: mean of the last 50 evaluations",
        ((10_000, 0.46), (100_000, 0.49), (1_000_000, 0.42)),
        "kuka",
    ),
    Published(
        "QT-Opt 2018, real arms, another task: 580k offline, 608k finetuned",
        ((580_000, 0.87), (608_000, 0.96)),
        "real",
    ),
)
