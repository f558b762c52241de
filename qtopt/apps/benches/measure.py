"""What all measurements share."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from qtopt.types import JsonValue

Line = dict[str, JsonValue]
"""One line of JSON: name, ours, reference, ratio, unit, what both were, and details."""

_TURNS = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    Attributes:
        seconds: how long each side is measured [s].
        threads: threads of torch, and of whatever a measurement runs on both sides.
        seed: of all chance.
    """

    seconds: float
    threads: int
    seed: int


def line(
    name: str, ours: float, reference: float, unit: str, ours_name: str, reference_name: str, **details: JsonValue
) -> Line:
    """Returns the values of one JSON line.

    Args:
        name: of the measurement.
        ours: our rate.
        reference: the reference's rate, of the same run.
        unit: of both.
        ours_name: what was measured on our side.
        reference_name: what was measured on the other side.
        details: further figures.
    """
    return {
        "name": name,
        "ours": round(ours, 3),
        "reference": round(reference, 3),
        "ratio": round(ours / reference, 3) if reference else None,
        "unit": unit,
        "ours_name": ours_name,
        "reference_name": reference_name,
        **details,
    }


def rates(
    ours: Callable[[], float],
    reference: Callable[[], float],
    seconds: float,
    prepare: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Returns things per second of two functions that do some and return how many; each is measured for ``seconds``.

    Both take turns, so that what else the machine does strikes both alike; the medians over the turns are returned.
    Each is called once before.

    Args:
        ours: returns how many it did, 0 when it has nothing left to do in this turn.
        reference: the same.
        seconds: of each side [s].
        prepare: called before each of our turns; its time is not counted.
    """
    prepare()
    ours()
    reference()
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(_TURNS):
        prepare()
        found[0].append(_rate(ours, seconds / _TURNS))
        found[1].append(_rate(reference, seconds / _TURNS))
    return statistics.median(found[0]), statistics.median(found[1])


def _rate(work: Callable[[], float], seconds: float) -> float:
    done, started = 0.0, time.perf_counter()
    while True:
        some = work()
        done += some
        elapsed = time.perf_counter() - started
        if not some or elapsed >= seconds:
            return done / elapsed
