"""The last checkpoints of whole runs as one result: the mean of all of them first, the best of them last."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtopt.loops.metrics import Proportion, wilson
from qtopt.types import JsonValue

_MANY = 10


@dataclass(frozen=True, slots=True)
class Checked:
    """One evaluated checkpoint: the seed of its run, its gradient step, its success."""

    seed: int
    step: int
    success: Proportion


def summarise_finals(evaluated: Sequence[Checked]) -> dict[str, JsonValue]:
    """Returns the figures of evaluated checkpoints, in the order in which they are to be quoted.

    ``final_success`` is the mean over all of them; its ``interval`` is Wilson's over all episodes together, which says
    how well these networks were measured, not how much another seed would differ: with several seeds that is
    ``over_seeds``. ``best_of_n`` was chosen on the very scenes that it is told of, and is no figure to compare by.
    """
    pooled = wilson(sum(each.success.successes for each in evaluated), sum(each.success.trials for each in evaluated))
    rates = np.array([each.success.rate for each in evaluated])
    seeds = sorted({each.seed for each in evaluated})
    told: dict[str, JsonValue] = {
        "final_success": round(float(rates.mean()), 4),
        "interval": [round(pooled.low, 4), round(pooled.high, 4)],
        "episodes": pooled.trials,
        "seeds": list(seeds),
    }
    if len(seeds) > 1:
        means = np.array([np.mean([each.success.rate for each in evaluated if each.seed == seed]) for seed in seeds])
        told["over_seeds"] = {
            "mean": round(float(means.mean()), 4),
            "standard_deviation": round(float(means.std(ddof=1)), 4),
            "worst": round(float(means.min()), 4),
            "best": round(float(means.max()), 4),
        }
    last = [one for seed in seeds for one in _last(evaluated, seed)]
    if len(last) == _MANY * len(seeds):
        told["last_10_worst"] = round(min(each.success.rate for each in last), 4)
        told["last_10_best"] = round(max(each.success.rate for each in last), 4)
    return told


def best_of(evaluated: Sequence[Checked]) -> dict[str, JsonValue]:
    """Returns the best checkpoint, and of how many it is the best."""
    best = max(evaluated, key=lambda each: each.success.rate)
    return {"n": len(evaluated), "success": round(best.success.rate, 4), "seed": best.seed, "step": best.step}


def _last(evaluated: Sequence[Checked], seed: int) -> list[Checked]:
    return sorted((each for each in evaluated if each.seed == seed), key=lambda each: each.step)[-_MANY:]
