"""From a run's metrics to its learning curve, and from many curves to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qtopt.errors import ConfigError
from qtopt.loops.metrics import Proportion, wilson
from qtopt.loops.report import success_of_report

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """The evaluations of one run on unseen objects, in the order of the grasps collected.

    Attributes:
        name: of the run.
        grasps: (E,), grasps in the store when the evaluated networks were made.
        success: each evaluation's successes and trials, E of them.
        scripted: the scripted policy's, by the seed of the scenes; runs that share a seed tried the same scenes.
    """

    name: str
    grasps: Array
    success: tuple[Proportion, ...]
    scripted: Mapping[int, Proportion]

    @property
    def rates(self) -> Array:
        """Success of each evaluation, (E,)."""
        return np.array([each.rate for each in self.success])


def curve_of(name: str, rows: Sequence[Mapping[str, Any]]) -> Curve:
    """Returns the learning curve told by the lines of a run's metrics.jsonl.

    The grasps of an evaluation are those collected when the trainer first reported a step not below the evaluated one,
    so an evaluation that took long does not look better informed than it was. Untrained networks are left out.

    Raises:
        ConfigError: there is no evaluation on unseen objects in it.
    """
    progress = [row for row in rows if "trainer/step" in row and "server/episodes" in row]
    reports = [
        report
        for row in rows
        if (report := row.get("evaluation")) is not None and report["objects"] == "unseen" and report["episodes"]
    ]
    learned = [report for report in reports if report["policy"] == "learned" and report["step"] > 0]
    if not learned or not progress:
        raise ConfigError(
            f"{name}: found no evaluation of trained networks on unseen objects in metrics.jsonl, expected at least "
            "one; wait until the run has evaluated, or take another"
        )
    points = sorted(
        ((_grasps_at(float(report["step"]), progress), success_of_report(report)) for report in learned),
        key=lambda point: point[0],
    )
    scripted = {report["seed"]: success_of_report(report) for report in reports if report["policy"] == "scripted"}
    return Curve(name, np.array([grasps for grasps, _ in points]), tuple(each for _, each in points), scripted)


def scripted_of(curves: Sequence[Curve]) -> Proportion:
    """Returns the scripted policy's success over all curves, the scenes of each seed counted once."""
    by_seed = {seed: success for curve in curves for seed, success in curve.scripted.items()}
    return wilson(sum(each.successes for each in by_seed.values()), sum(each.trials for each in by_seed.values()))


def common_grid(curves: Sequence[Curve]) -> Array:
    """Returns the numbers of grasps at which any curve was evaluated, within the range that all of them cover.

    Raises:
        ConfigError: there are none.
    """
    first = max(float(curve.grasps[0]) for curve in curves)
    last = min(float(curve.grasps[-1]) for curve in curves)
    if not first < last:
        raise ConfigError(
            f"found curves that share no range of grasps ({', '.join(curve.name for curve in curves)}), expected runs "
            "with at least two evaluations each over the same range; draw them one by one"
        )
    every = np.unique(np.concatenate([curve.grasps for curve in curves]))
    return every[(every >= first) & (every <= last)]


def resample(curve: Curve, grid: Array) -> Array:
    """Returns success at each number of grasps of ``grid``, on straight lines between the evaluations."""
    return np.interp(grid, curve.grasps, curve.rates)


def _grasps_at(step: float, progress: Sequence[Mapping[str, Any]]) -> float:
    for row in progress:
        if row["trainer/step"] >= step:
            return float(row["server/episodes"])
    return float(progress[-1]["server/episodes"])
