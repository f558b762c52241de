"""Simulated grasps per second of one core, beside bullet3's environment; the measurement itself is ``sim.bench``."""

from qtopt.apps.benches.measure import Line, Settings
from sim import bench


def measure(settings: Settings) -> list[Line]:
    """Measures both simulators in turns."""
    return [bench.measure(settings.seconds, settings.seed)]
