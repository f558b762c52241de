"""The trainer's loss at every step through all of its lives, and whether it jumps where one life ends."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qtopt.apps import train
from qtopt.loops.train import Trained
from qtopt.types import JsonValue

_WINDOW = 40
"""Steps before and after a checkpoint whose mean losses are compared."""
_SETTLED = 200
"""Step from which on they are: before, the store holds a handful of episodes, and each that comes moves the loss."""


class JournalledFigures(train.Figures):
    """The trainer's figures, and a line for each gradient step in a file: step, loss."""

    def __init__(self, journal: Path) -> None:
        super().__init__()
        self._journal = journal.open("a", buffering=1)
        self._journal.write("life\n")

    def add(self, turn: Trained) -> None:
        """Takes what one turn did."""
        super().add(turn)
        if turn.figures:
            self._journal.write(f"{turn.step} {turn.figures['loss'] + turn.figures['auxiliary_loss']:.6g}\n")
        if turn.checkpoint is not None:
            self._journal.write(f"{turn.step} saved\n")


@dataclass
class _Life:
    losses: dict[int, float]
    saved: list[int]

    def before(self, step: int) -> list[float]:
        return [self.losses[at] for at in range(step - _WINDOW + 1, step + 1) if at in self.losses]

    def after(self, step: int) -> list[float]:
        return [self.losses[at] for at in range(step + 1, step + _WINDOW + 1) if at in self.losses]


def read_lives(journal: Path) -> list[_Life]:
    """Returns the trainer's lives in order; death cuts no line short, as each is one write."""
    lives: list[_Life] = []
    for line in journal.read_text().splitlines():
        step, _, said = line.partition(" ")
        if step == "life":
            lives.append(_Life({}, []))
        elif said == "saved":
            lives[-1].saved.append(int(step))
        else:
            lives[-1].losses[int(step)] = float(said)
    return lives


def compare_lives(journal: Path) -> tuple[dict[str, JsonValue], list[str]]:
    """Returns how the mean loss changes over a checkpoint that a life began from, beside those that one went on over.

    A jump counts as a breach when it is more than a quarter of the way back to the loss of the first steps, and larger
    than the largest change over a checkpoint in the middle of a life. Both are taken from step ``_SETTLED`` on.
    """
    lives = read_lives(journal)
    known: dict[int, float] = {}  # the newest life's loss of each step so far
    restarts, controls = [], []
    for life in lives:
        if life.losses:
            first = min(life.losses)
            earlier = _Life(known, []).before(first - 1)
            after = life.after(first - 1)
            if len(earlier) == len(after) == _WINDOW and first > _SETTLED:
                restarts.append(float(np.mean(after) - np.mean(earlier)))
        for step in life.saved:
            before, after = life.before(step), life.after(step)
            if len(before) == len(after) == _WINDOW and step > _SETTLED:
                controls.append(float(np.mean(after) - np.mean(before)))
        known.update(life.losses)
    steps = sorted(known)
    fresh = float(np.mean([known[at] for at in steps[:10]])) if steps else 0.0
    last = float(np.mean([known[at] for at in steps[-500:]])) if steps else 0.0
    allowed = max(0.25 * (fresh - last), *controls, 0.0)
    breaches = [
        f"the loss rose by {rise:.3f} at a restart, at most {allowed:.3f} allowed"
        for rise in restarts
        if rise > allowed
    ]
    return {
        "gradient_steps": steps[-1] if steps else 0,
        "loss_of_first_10_steps": round(fresh, 4),
        "loss_of_last_500_steps": round(last, 4),
        "restarts_compared": len(restarts),
        "loss_change_at_restarts": _summary(restarts),
        "checkpoints_compared": len(controls),
        "loss_change_at_checkpoints": _summary(controls),
    }, breaches


def _summary(values: list[float]) -> dict[str, JsonValue]:
    if not values:
        return {}
    low, middle, high = np.percentile(values, [5, 50, 95]).round(4).tolist()
    return {
        "mean": round(float(np.mean(values)), 4),
        "p5": low,
        "p50": middle,
        "p95": high,
        "max": round(max(values), 4),
    }
