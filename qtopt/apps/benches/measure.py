"""What all measurements share."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from qtopt.types import JsonValue

_SLICES = 4


@dataclass(frozen=True)
class Result:
    """Two rates and what they are of.

    Attributes:
        ours: our rate.
        reference: the reference's rate.
        unit: of both.
        ours_is: what was measured on our side.
        reference_is: what was measured on the other side.
        details: further figures.
    """

    ours: float
    reference: float
    unit: str
    ours_is: str
    reference_is: str
    details: Mapping[str, JsonValue] = field(default_factory=dict)

    def line(self, name: str) -> dict[str, JsonValue]:
        """Returns the values of one JSON line."""
        return {
            "name": name,
            "ours": round(self.ours, 3),
            "reference": round(self.reference, 3),
            "ratio": round(self.ours / self.reference, 3) if self.reference else None,
            "unit": self.unit,
            "ours_is": self.ours_is,
            "reference_is": self.reference_is,
            **self.details,
        }


def rates(ours: Callable[[], float], reference: Callable[[], float], seconds: float) -> tuple[float, float]:
    """Returns things per second of two functions that do some and return how many; each is measured for ``seconds``.

    Both take turns in slices, so that what else the machine does strikes both alike. Each is called once before.
    """
    ours(), reference()
    totals, times = [0.0, 0.0], [0.0, 0.0]
    for _ in range(_SLICES):
        for side, work in enumerate((ours, reference)):
            started = time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds / _SLICES:
                totals[side] += work()
            times[side] += elapsed
    return totals[0] / times[0], totals[1] / times[1]
