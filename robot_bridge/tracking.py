"""A set point that moves towards where it should be, within limits of speed and acceleration."""

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


def towards(gap: Vector, velocity: Vector, speed: float, accel: float, dt_s: float) -> Vector:
    """Returns the velocity of the next time step: as fast as speed and the way left to brake allow.

    Args:
        gap: from the set point to the target, any number of axes.
        velocity: of the set point now.
        speed: limit of the velocity's length.
        accel: limit of its change.
        dt_s: the time step; with a target that stands still, the set point ends on it.
    """
    distance = float(np.linalg.norm(gap))
    half = accel * dt_s / 2
    fastest = min(speed, float(np.sqrt(half * half + 2 * accel * distance)) - half, distance / dt_s)
    wanted = gap * (fastest / distance) if distance > 0 else np.zeros_like(gap)
    change = wanted - velocity
    size = float(np.linalg.norm(change))
    most = accel * dt_s
    return wanted if size <= most * 1.001 else velocity + change * (most / size)


def slower(velocity: Vector, most: float) -> Vector:
    """Returns ``velocity`` shortened by ``most``, or zero."""
    size = float(np.linalg.norm(velocity))
    return velocity * ((size - most) / size) if size > most else np.zeros_like(velocity)
