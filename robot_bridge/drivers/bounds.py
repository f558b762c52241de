"""Bounds of the numbers in a driver's table of the cell file: a wrong unit must not reach a device."""

from collections.abc import Mapping
from typing import Any, Final

from qtopt.errors import ConfigError

Bounds = Mapping[str, tuple[float, float]]

PORTS: Final = (1.0, 65535.0)
TURN_RAD_S: Final = (0.05, 1.6)
"""Of a tool; ``[limits] yaw_rate_rad_s`` goes as far."""
SPEED_M_S: Final = (0.005, 0.5)
"""Of a tool; ``[limits] speed_m_s`` goes as far."""


def require_within(options: Any, bounds: Bounds) -> None:
    """Raises ConfigError unless attributes lie within their bounds, each number of a tuple for itself.

    What is not a number lies within none; None is left out.
    """
    for name, (low, high) in bounds.items():
        value = getattr(options, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if value is not None and not all(low <= number <= high for number in numbers):
            unit = " m, not millimetres" if name.endswith("_m") else ""
            raise ConfigError(f"{name} is {value}, expected {low:g} to {high:g}{unit}")
