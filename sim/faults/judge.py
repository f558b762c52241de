"""What a tool did after a fault, from the record of its way: when it stood, how far it went on, whether it stayed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Sample = Sequence[float]
"""Clock (``time.monotonic``) [s], x, y, z [m], as ``sim.plant.Sample`` and as JSON has it."""

BRAKE_M_S2: Final = 1.0
"""The gentlest braking in these cells: a hold's."""
SLACK_M: Final = 0.003
"""What the motors lag behind, and the ripple of their brakes."""
STILL_M_S = 0.002
_TREMBLE_M = 0.0002
_SPAN_S = 0.02
"""Speeds are taken over this long at least: neither the motors' ripple nor a late sample is a motion."""


@dataclass(frozen=True, slots=True)
class Course:
    """A tool's course after a fault.

    Attributes:
        stood_s: after the fault, when it came to rest for good; nan where it never did.
        way_m: farthest from where it was at the fault, until it stood.
        drift_m: how far it went after it stood.
        watched_s: for how long it was watched after it stood.
    """

    stood_s: float
    way_m: float
    drift_m: float
    watched_s: float


@dataclass(frozen=True, slots=True)
class Allowed:
    """By when [s] after a fault, and within which way [m], a tool has to stand."""

    stood_s: float
    way_m: float


def allowed(speed_m_s: float, within_s: float, late_s: float) -> Allowed:
    """Returns what reaction and braking take, and by how much the machine was late meanwhile.

    Args:
        speed_m_s: of the tool at the fault.
        within_s: from the fault to the beginning of braking.
        late_s: so late the machine woke a sleeper.
    """
    braking_m = speed_m_s**2 / (2 * BRAKE_M_S2)
    return Allowed(within_s + speed_m_s / BRAKE_M_S2 + late_s, speed_m_s * (within_s + late_s) + braking_m + SLACK_M)


def overrun(seen: Course, most: Allowed) -> list[str]:
    """Returns in words where a tool stood later or farther than allowed; what never stood did."""
    troubles = []
    if not seen.stood_s <= most.stood_s:
        troubles.append(f"it stood after {seen.stood_s:.2f} s, allowed were {most.stood_s:.2f} s")
    if not seen.way_m <= most.way_m:
        troubles.append(f"it went on by {1e3 * seen.way_m:.0f} mm, allowed were {1e3 * most.way_m:.0f} mm")
    return troubles


def course(trace: Sequence[Sample], fault_s: float) -> Course:
    """Returns the course after ``fault_s`` of a record that begins a moment earlier; times by the clock on the wall."""
    speeds = _speeds(trace)
    after = [(sample, speed) for sample, speed in zip(trace, speeds, strict=True) if sample[0] >= fault_s]
    if not after:
        raise ValueError(f"the record of {len(trace)} samples ends before the fault at {fault_s:.2f} s")
    first, _ = after[0]
    last_moving = max((index for index, (_, each) in enumerate(after) if each > STILL_M_S), default=-1)
    rest = [sample for sample, _ in after[last_moving + 1 :]]
    if not rest:
        return Course(math.nan, _farthest(first, [sample for sample, _ in after]), math.nan, 0.0)
    way_m = _farthest(first, [sample for sample, _ in after[: last_moving + 2]])
    stood_s = max(0.0, rest[0][0] - fault_s)
    return Course(stood_s, way_m, _farthest(rest[0], rest), rest[-1][0] - rest[0][0])


def descent(trace: Sequence[Sample], fault_s: float) -> Course:
    """Returns the course after ``fault_s`` until the tool went down no more: it may be led up without ever standing."""
    after = [sample for sample in trace if sample[0] >= fault_s]
    lowest_m = min(sample[3] for sample in after)
    end = next(index for index, sample in enumerate(after) if sample[3] <= lowest_m + _TREMBLE_M)
    return Course(after[end][0] - fault_s, _farthest(after[0], after[: end + 1]), 0.0, after[-1][0] - after[end][0])


def _farthest(start: Sample, samples: Sequence[Sample]) -> float:
    return max((math.dist(start[1:4], each[1:4]) for each in samples), default=0.0)


def _speeds(trace: Sequence[Sample]) -> list[float]:
    """Returns the speed at each sample [m/s], over the shortest span of at least ``_SPAN_S`` that ends there."""
    speeds, begin = [], 0
    for index, sample in enumerate(trace):
        while begin + 1 < index and sample[0] - trace[begin + 1][0] >= _SPAN_S:
            begin += 1
        span_s = sample[0] - trace[begin][0]
        speeds.append(math.dist(sample[1:4], trace[begin][1:4]) / span_s if span_s > 0 else 0.0)
    return speeds
