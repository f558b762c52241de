"""What all measurements share."""

import time
from collections.abc import Callable

from qtopt.types import JsonValue

_SLICES = 4


def line(
    name: str, ours: float, reference: float, unit: str, ours_name: str, reference_name: str, **details: JsonValue
) -> dict[str, JsonValue]:
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


def rates(ours: Callable[[], float], reference: Callable[[], float], seconds: float) -> tuple[float, float]:
    """Returns things per second of two functions that do some and return how many; each is measured for ``seconds``.

    Both take turns in slices, so that what else the machine does strikes both alike. Each is called once before.
    """
    ours()
    reference()
    totals, times = [0.0, 0.0], [0.0, 0.0]
    for _ in range(_SLICES):
        for side, work in enumerate((ours, reference)):
            started = time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds / _SLICES:
                totals[side] += work()
            times[side] += elapsed
    return totals[0] / times[0], totals[1] / times[1]
