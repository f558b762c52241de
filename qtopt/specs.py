"""Shapes, dtypes, bounds and units, written once: storage, codec, networks and test data derive from here."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qtopt.errors import SchemaMismatch
from qtopt.types import FloatArray

SCHEMA_VERSION = 1
"""Raised when a field changes meaning; two sides with different versions refuse each other and say why."""

OLDEST_SCHEMA_VERSION = 1
"""Clients from this version on are served: at least those of the version before; docs/compatibility.md says how."""

MAX_STEPS = 20
"""Actions in an episode at most (QT-Opt, section 4.1)."""

ACTION_FIELDS = (
    "world_vector_x",
    "world_vector_y",
    "world_vector_z",
    "vertical_rotation_sin",
    "vertical_rotation_cos",
    "close_gripper",
    "open_gripper",
    "terminate_episode",
)
WORLD_VECTOR = slice(0, 3)
ROTATION_SIN, ROTATION_COS = 3, 4
CLOSE, OPEN, TERMINATE = 5, 6, 7
ACTION_SIZE = len(ACTION_FIELDS)

STEP_XY_M = 0.08
"""Largest displacement of one action along x and along y [m]."""
STEP_Z_M = 0.10
"""Largest displacement of one action along z [m]."""
STEP_YAW_RAD = np.pi / 2
"""Largest change of azimuth of one action [rad]: a two-finger gripper repeats after a half turn."""


MODE_MOVE, MODE_SWITCH, MODE_TERMINATE = 0, 1, 2
"""What a search chooses between: move; move, then switch the gripper; end the episode, which does nothing else."""
MODE_USES_POINT = (True, True, False)
"""Whether the displacement matters in each mode."""
POINT_LOW = (-STEP_XY_M, -STEP_XY_M, -STEP_Z_M, -STEP_YAW_RAD)
POINT_HIGH = (STEP_XY_M, STEP_XY_M, STEP_Z_M, STEP_YAW_RAD)
"""The box that displacements x, y, z [m] and changes of azimuth [rad] are searched in."""
PRIOR_NO_END = (0.5, 0.5, 0.0)
PRIOR_MAY_END = (0.5, 0.45, 0.05)
PRIOR_ENDS = (0.0, 0.0, 1.0)
"""Prior over the modes: where ending is no candidate, where it is one, and where the scripted rule ends the episode."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Shape, dtype and inclusive bounds of an array; a dimension of -1 is free."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    minimum: float = -np.inf
    maximum: float = np.inf

    def validate(self, value: npt.NDArray[np.generic]) -> None:
        """Raises SchemaMismatch, naming what was found and expected, unless ``value`` fits."""
        fits = len(value.shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, value.shape, strict=True)
        )
        if not fits or value.dtype != np.dtype(self.dtype):
            raise SchemaMismatch(
                f"{self.name}: found {value.dtype}{list(value.shape)}, expected {self.dtype}{list(self.shape)} "
                "(-1 is any size)"
            )
        if value.dtype.kind == "f" and value.size:
            low, high = float(value.min()), float(value.max())  # NaN where one of them is, and NaN is within no bounds
            if not (low >= self.minimum and high <= self.maximum):
                raise SchemaMismatch(
                    f"{self.name}: values {low} to {high} leave the bounds "
                    f"[{self.minimum}, {self.maximum}] or are not numbers"
                )

    def example(self, rng: np.random.Generator, free: int = 3) -> npt.NDArray[np.generic]:
        """Returns a legal random value; free dimensions have size ``free``."""
        shape = tuple(free if size == -1 else size for size in self.shape)
        if self.dtype == "bool":
            return rng.random(shape) < 0.5
        if self.dtype == "uint8":
            return rng.integers(0, 256, shape, dtype=np.uint8)
        low, high = max(self.minimum, -1.0), min(self.maximum, 1.0)
        return rng.uniform(low, high, shape).astype(self.dtype)


_SLACK = 1e-4
ACTION_SPEC = ArraySpec("action", (ACTION_SIZE,), "float32", -1.0 - _SLACK, 1.0 + _SLACK)
"""One action: ``world_vector`` [m, base frame], sine and cosine of the change of azimuth, three flags in {0, 1}."""

IS_INTERVENTION = "is_intervention"
"""The array that came later than the others: what was written before has none, and no step of it was one."""

EPISODE_SPECS = (
    ArraySpec("images", (-1, -1, -1, 3), "uint8"),
    ArraySpec("gripper_closed", (-1,), "bool"),
    ArraySpec("height_to_bottom", (-1,), "float32", -1.0, 10.0),
    ArraySpec("tool_pose", (-1, 4), "float32", -100.0, 100.0),
    ArraySpec("actions", (-1, ACTION_SIZE), "float32", -1.0 - _SLACK, 1.0 + _SLACK),
    ArraySpec("rewards", (-1,), "float32", -10.0, 10.0),
    ArraySpec("behaviour", (-1,), "uint8"),
    ArraySpec(IS_INTERVENTION, (-1,), "bool"),
)
"""The arrays of an ``Episode``: the first four have T + 1 rows, the others T."""


def make_action(
    world_vector_m: tuple[float, float, float] = (0.0, 0.0, 0.0),
    yaw_rad: float = 0.0,
    *,
    close: bool = False,
    open_: bool = False,
    terminate: bool = False,
) -> FloatArray:
    """Returns an action, float32 (8,): a displacement in the base frame [m], a change of azimuth [rad], three flags."""
    return np.array(
        [*world_vector_m, math.sin(yaw_rad), math.cos(yaw_rad), float(close), float(open_), float(terminate)],
        np.float32,
    )
