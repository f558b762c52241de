"""Emptying bins: attempts in one bin until nothing is left in it, as the paper counts its 28 bins.

Objects of one bin are no independent trials, so the spread over bins stands beside the interval over objects.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from qtopt.loops.metrics import Proportion, wilson
from qtopt.types import JsonValue, Outcome

MARKS = (5, 10, 15)
"""After so many attempts the share removed so far is told."""


def removed_of(rows: Sequence[dict[str, JsonValue]], within: int | None = None) -> Proportion:
    """Returns the objects removed, of those that lay in the bins at first; within so many attempts if given.

    Args:
        rows: attempts as ``Evaluated.to_json`` gives them, ordered by index.
        within: attempts of each bin that count.
    """
    bins = _bins(rows)
    return wilson(sum(_removed(each, within) for each in bins), sum(_objects(each) for each in bins))


def summarise_emptying(rows: Sequence[dict[str, JsonValue]]) -> dict[str, JsonValue]:
    """Returns the figures of emptied bins: objects removed with a Wilson interval, the spread over bins, bins emptied.

    A bin that is empty early counts at every later mark with what was removed from it.
    """
    bins = _bins(rows)
    whole = removed_of(rows)
    filled = [each for each in bins if _objects(each)]
    shares = np.array([_removed(each) / _objects(each) for each in filled])
    several = len(shares) > 1
    return {
        "bins": len(bins),
        "objects": whole.trials,
        "removed": whole.successes,
        "share_removed": round(whole.rate, 4) if whole.trials else None,
        "wilson_95": [round(whole.low, 4), round(whole.high, 4)],
        "share_removed_after": {
            str(mark): round(removed_of(rows, mark).rate, 4) if whole.trials else None for mark in MARKS
        },
        "bins_emptied": sum(_removed(each) == _objects(each) for each in filled),
        "over_bins": {
            "mean": round(float(shares.mean()), 4) if len(shares) else None,
            "standard_deviation": round(float(shares.std(ddof=1)), 4) if several else None,
            "standard_error": round(float(shares.std(ddof=1) / len(shares) ** 0.5), 4) if several else None,
            "worst": round(float(shares.min()), 4) if len(shares) else None,
            "best": round(float(shares.max()), 4) if len(shares) else None,
        },
    }


def _bins(rows: Sequence[dict[str, JsonValue]]) -> list[list[dict[str, JsonValue]]]:
    return [list(attempts) for _, attempts in groupby(rows, key=lambda row: row["scene"])]


def _objects(attempts: Sequence[dict[str, JsonValue]]) -> int:
    return int(str(attempts[0]["objects_before"]))


def _removed(attempts: Sequence[dict[str, JsonValue]], within: int | None = None) -> int:
    return sum(row["outcome"] == Outcome.SUCCESS.name.lower() for row in attempts[:within])
