"""Configuration: frozen dataclasses that check themselves, read from and written to YAML; and what several parts share.

Each part keeps its own configuration beside its code; the programs in ``qtopt.apps`` put them together. The camera, the
reach, the images and the search are here, as the robot's side knows them too, and has no torch.
"""

import dataclasses
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from qtopt.durable import write_text
from qtopt.errors import ConfigError

T = TypeVar("T")

_SHORT = reprlib.Repr()  # a file of a few lines can mean a value whose full text fills the memory
_SHORT.maxstring = _SHORT.maxother = 200

STRICT = ConfigDict(extra="forbid")
"""Put ``__pydantic_config__ = STRICT`` on a configuration dataclass so that an unknown key in a file is an error."""


@dataclasses.dataclass(frozen=True)
class CameraConfig:
    """A pinhole camera in the base frame, shared by the simulator and by networks that look where the tool will be.

    Attributes:
        position_m: the optical centre.
        target_m: the point in the middle of the image.
        fov_deg: opening angle across the (square) image.
        size_px: height and width of the image.
    """

    __pydantic_config__ = STRICT

    position_m: tuple[float, float, float] = (0.30, 0.42, 0.62)
    target_m: tuple[float, float, float] = (0.60, 0.0, 0.065)
    fov_deg: float = 35.0
    size_px: int = 72

    def __post_init__(self) -> None:
        if not 1.0 <= self.fov_deg <= 150.0:
            raise ConfigError(f"camera fov_deg is {self.fov_deg}, expected 1 to 150 degrees")
        if self.size_px < 16:
            raise ConfigError(f"camera size_px is {self.size_px}, expected at least 16 pixels")

    def projection(self) -> npt.NDArray[np.float64]:
        """Returns the 3x4 matrix from (x, y, z, 1) [m, base frame] to (u w, v w, w) [pixels from the top left]."""
        position = np.array(self.position_m, np.float64)
        forward = np.array(self.target_m, np.float64) - position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        focal_px = 0.5 * self.size_px / np.tan(np.radians(self.fov_deg) / 2)
        centre_px = self.size_px / 2
        intrinsics = np.array([[focal_px, 0.0, centre_px], [0.0, focal_px, centre_px], [0.0, 0.0, 1.0]])
        return np.asarray(intrinsics @ np.hstack([rotation, -(rotation @ position)[:, None]]))


@dataclasses.dataclass(frozen=True)
class Reach:
    """Where a cell lets the point between the finger tips go and from where a grasp counts; networks know it too.

    Attributes:
        low_m: smallest x, y in the base frame and smallest height above the bin floor.
        high_m: largest x, y and height.
        lifted_m: only finger tips at least so high above the bin floor can hold an object up; 0 where that is unknown.
    """

    __pydantic_config__ = STRICT

    low_m: tuple[float, float, float] = (0.50, -0.10, 0.005)
    high_m: tuple[float, float, float] = (0.70, 0.10, 0.25)
    lifted_m: float = 0.08

    def __post_init__(self) -> None:
        if not 0.0 <= self.lifted_m < self.high_m[2]:
            raise ConfigError(f"reach lifted_m is {self.lifted_m}, expected from 0 to below {self.high_m[2]}, the top")
        if not all(low < high for low, high in zip(self.low_m, self.high_m, strict=True)):
            raise ConfigError(f"reach low_m {self.low_m} must lie below high_m {self.high_m} on every axis")


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """How images enter a network.

    Attributes:
        stored_px: height and width as captured and stored.
        crop_px: height and width as seen by the network.
        photometric: strength of the colour disturbance in training; 0 turns it off, 1 gives the published ranges.
    """

    __pydantic_config__ = STRICT

    stored_px: int = 72
    crop_px: int = 64
    photometric: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.crop_px <= self.stored_px:
            raise ConfigError(f"crop_px is {self.crop_px}, expected 1 to stored_px ({self.stored_px})")

    @property
    def centre_offset_px(self) -> int:
        """Rows and columns left out before the middle crop."""
        return (self.stored_px - self.crop_px) // 2


@dataclasses.dataclass(frozen=True)
class CemConfig:
    """Sizes of the search.

    Attributes:
        samples: candidates a state in each iteration.
        elites: best candidates that the next population is fitted to.
        iterations: populations scored.
        prior_share: weight of the prior over modes in every later population.
        min_std_share: smallest standard deviation of a later population, as a share of the box's width.
    """

    __pydantic_config__ = STRICT

    samples: int = 64
    elites: int = 6
    iterations: int = 2
    prior_share: float = 0.2
    min_std_share: float = 0.02

    def __post_init__(self) -> None:
        if not 1 <= self.elites <= self.samples:
            raise ConfigError(f"cem elites is {self.elites}, expected 1 to samples ({self.samples})")
        if self.iterations < 1:
            raise ConfigError(f"cem iterations is {self.iterations}, expected at least 1")


def to_plain(config: Any) -> Any:
    """Returns a configuration dataclass as plain dictionaries, lists and scalars."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def from_plain(kind: type[T], values: Any, where: str = "configuration") -> T:
    """Builds a configuration of ``kind`` from plain values; raises ConfigError naming each bad key."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']} (found {_SHORT.repr(fault['input'])})"
            for fault in error.errors()
        )
        raise ConfigError(f"{where}: {faults}") from error


def differences(found: Any, expected: Any, prefix: str) -> str:
    """Returns where two plain configurations differ: ``prefix.key is 1, expected 2; ...``; empty when nowhere."""
    here, there = dict(_flat(prefix, found)), dict(_flat(prefix, expected))
    return "; ".join(
        f"{key} is {here.get(key)!r}, expected {there.get(key)!r}"
        for key in {**there, **here}
        if here.get(key) != there.get(key)
    )


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix, value
        return
    for name, inner in value.items():
        yield from _flat(f"{prefix}.{name}", inner)


def save_yaml(config: Any, path: Path) -> None:
    """Writes a configuration dataclass as YAML; nobody ever reads half of it."""
    write_text(path, yaml.safe_dump(to_plain(config), sort_keys=False))


def load_yaml(kind: type[T], path: Path) -> T:
    """Reads a configuration of ``kind``; raises ConfigError when the file is missing, not YAML or does not fit."""
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: found no such file, expected one with YAML; check the path") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: no text, or a date of no month
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    return from_plain(kind, values or {}, str(path))
