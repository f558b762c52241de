"""The cell file: one TOML file that says what a cell is made of and what its arm may do.

Every key carries its unit. A key that this program does not know is an error, and so is a value beyond the bounds of
``robot_bridge.safety.limits``: a cell with a misspelt limit must not run on the default. Secrets do not belong here;
drivers take them from files that the table names.
"""

import dataclasses
import difflib
import hashlib
import ipaddress
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from qtopt.config import STRICT, from_plain
from qtopt.errors import ConfigError
from qtopt.specs import MAX_STEPS
from robot_bridge.config import CellConfig, MotionLimits
from robot_bridge.safety.limits import (
    BOX_TOLERANCE_M,
    BinGeometry,
    ContactLimits,
    RecoveryLimits,
    SafetyLimits,
    WatchdogLimits,
    check_bounds,
)
from robot_bridge.safety.region import Region
from robot_bridge.success_config import SuccessConfig

SCHEMA = 1
_FEWEST_SLOW = 20
_CALIBRATION = "calibration_file"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """A device: the name of its driver and the driver's own keys, checked by ``robot_bridge.registry``."""

    driver: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class GraspConfig:
    """How the fingers are used.

    Attributes:
        close_force_n: force of a grasp.
        speed_m_s: of the fingers.
        timeout_s: a motion that takes longer is a fault.
        open_width_m: opened so far; None: as far as they go.
        closed_empty_width_m: what closed fingers measure with nothing between them; ``calibrate gripper`` finds it.
    """

    __pydantic_config__ = STRICT

    close_force_n: float = 30.0
    speed_m_s: float = 0.1
    timeout_s: float = 3.0
    open_width_m: float | None = None
    closed_empty_width_m: float = 0.0

    def __post_init__(self) -> None:
        bounds = {
            "close_force_n": (0.0, 100.0),
            "speed_m_s": (0.005, 0.5),
            "timeout_s": (0.5, 10.0),
            "closed_empty_width_m": (-0.005, 0.05),
        }
        check_bounds(self, bounds, "grasp")
        if self.open_width_m is not None and not 0.0 < self.open_width_m <= 0.3:
            raise ConfigError(f"[grasp] open_width_m is {self.open_width_m}, expected above 0 and up to 0.3")


@dataclass(frozen=True)
class HomeConfig:
    """Where the arm waits.

    Attributes:
        clear_pose_m: tool point from where the camera sees the whole bin, however the tool is turned; None: above the
            middle of the bin.
        yaw_rad: azimuth of home; the tool stays within ``[limits] yaw_rad`` of it.
    """

    __pydantic_config__ = STRICT

    clear_pose_m: tuple[float, float, float] | None = None
    yaw_rad: float = 0.0

    def __post_init__(self) -> None:
        check_bounds(self, {"yaw_rad": (-3.1416, 3.1416)}, "home")


@dataclass(frozen=True)
class EpisodeConfig:
    """What ``GraspEnv`` does; heights of the finger tips above the bin floor. See ``robot_bridge.CellConfig``."""

    __pydantic_config__ = STRICT

    start_height_m: tuple[float, float] = (0.16, 0.20)
    clear_height_m: float = 0.22
    lifted_height_m: float = 0.08
    top_height_m: float = 0.25
    max_steps: int = MAX_STEPS
    step_penalty: float = 0.05

    def __post_init__(self) -> None:
        heights = ("clear_height_m", "lifted_height_m", "top_height_m")
        # A longer episode, or a reward beyond its bounds, is one that no server takes.
        check_bounds(self, {"max_steps": (1, MAX_STEPS), "step_penalty": (0.0, 10.0)}, "episode")
        check_bounds(self, dict.fromkeys(heights, (0.0, 1.5)), "episode")


@dataclass(frozen=True)
class SpoolConfig:
    """Where finished episodes wait for the server: directory, size at most, and free share of its disk at least."""

    __pydantic_config__ = STRICT

    dir: Path = Path("spool")
    max_gb: float = 40.0
    min_free: float = 0.15

    def __post_init__(self) -> None:
        check_bounds(self, {"max_gb": (0.01, 1e5), "min_free": (0.01, 0.9)}, "spool")


@dataclass(frozen=True)
class PolicyConfig:
    """Who chooses the actions.

    Attributes:
        source: ``scripted``, ``remote`` (the server's policy service) or ``onnx:DIRECTORY``.
    """

    __pydantic_config__ = STRICT

    source: str = "scripted"

    def __post_init__(self) -> None:
        if self.source not in ("scripted", "remote") and not self.source.startswith("onnx:"):
            raise ConfigError(f'[policy] source is "{self.source}", expected "scripted", "remote" or "onnx:DIRECTORY"')


@dataclass(frozen=True)
class CellFile:
    """A cell file, read and checked.

    Attributes:
        cell: the cell's name.
        config_hash: SHA-256 over everything that the file says, comments and order left out, and what is in the
            ``calibration_file`` of a device; stored with every episode, and a change of it makes the cell slow for its
            first episodes.
        arm: the arm's table.
        gripper: the gripper's.
        cameras: by name; ``main`` is the one that the policy looks through.
        bin: where the bin is.
    """

    cell: str
    config_hash: str
    arm: Table
    gripper: Table
    cameras: Mapping[str, Table]
    bin: BinGeometry
    limits: SafetyLimits = field(default_factory=SafetyLimits)
    contact: ContactLimits = field(default_factory=ContactLimits)
    watchdog: WatchdogLimits = field(default_factory=WatchdogLimits)
    recovery: RecoveryLimits = field(default_factory=RecoveryLimits)
    grasp: GraspConfig = field(default_factory=GraspConfig)
    home: HomeConfig = field(default_factory=HomeConfig)
    success: SuccessConfig = field(default_factory=SuccessConfig)
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    spool: SpoolConfig = field(default_factory=SpoolConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)


_PARTS: Mapping[str, type] = {
    "bin": BinGeometry,
    "limits": SafetyLimits,
    "contact": ContactLimits,
    "watchdog": WatchdogLimits,
    "recovery": RecoveryLimits,
    "grasp": GraspConfig,
    "home": HomeConfig,
    "success": SuccessConfig,
    "episode": EpisodeConfig,
    "spool": SpoolConfig,
    "policy": PolicyConfig,
}
_KEYS = ("schema", "cell", "arm", "gripper", "camera", *_PARTS)


def load_cell_file(path: Path) -> CellFile:
    """Reads a cell file.

    Raises:
        ConfigError: it cannot be read, a key is unknown or missing, or a value is beyond its bounds.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse_cell_file(text, str(path))


def parse_cell_file(text: str, where: str = "cell file") -> CellFile:
    """Returns what a cell file says; raises ConfigError as ``load_cell_file`` does, naming ``where``."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError; so is a number without end
        raise ConfigError(f"{where}: is not TOML: {error}") from error
    try:
        return _build(values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def check_keys(values: Mapping[str, Any], known: tuple[str, ...], table: str) -> None:
    """Raises ConfigError for a key that is not known, with the nearest that is."""
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ConfigError(f"{table}: unknown key {key!r}{hint} Known are: {', '.join(sorted(known))}")


def build_options(kind: type[T], values: Mapping[str, Any], table: str) -> T:
    """Returns the dataclass ``kind`` from a table's keys; raises ConfigError naming a bad key or value."""
    check_keys(values, tuple(each.name for each in dataclasses.fields(kind) if each.init), table)  # type: ignore[arg-type]
    return from_plain(kind, dict(values), table)


def cell_config(cell: CellFile) -> CellConfig:
    """Returns the limits and heights that ``GraspEnv`` works within, from the cell's bin and its limits.

    The policy's workspace lies within the bin's walls less ``wall_m``, from the soft floor up to ``top_height_m``.
    """
    limits, geometry, episode = cell.limits, cell.bin, cell.episode
    low_x, low_y = (value + limits.wall_m for value in geometry.inner_min_m)
    high_x, high_y = (value - limits.wall_m for value in geometry.inner_max_m)
    floor = geometry.floor_z_m
    return CellConfig(
        limits=MotionLimits(
            low_m=(low_x, low_y, floor + limits.floor_soft_m),
            high_m=(high_x, high_y, floor + episode.top_height_m),
            step_xy_m=limits.step_m,
            step_z_m=limits.step_m,
            step_yaw_rad=limits.step_yaw_rad,
            yaw_rad=limits.yaw_rad,
            home_yaw_rad=cell.home.yaw_rad,
        ),
        floor_z_m=floor,
        start_height_m=episode.start_height_m,
        clear_height_m=episode.clear_height_m,
        lifted_height_m=episode.lifted_height_m,
        empty_width_m=cell.grasp.closed_empty_width_m + cell.success.width_margin_m,
        max_steps=episode.max_steps,
        step_penalty=episode.step_penalty,
    )


def _build(values: dict[str, Any]) -> CellFile:
    check_keys(values, _KEYS, "the file")
    if values.get("schema") != SCHEMA:
        raise ConfigError(f"schema is {values.get('schema')!r}, expected {SCHEMA}: this program reads no other")
    for key in ("cell", "arm", "gripper", "camera", "bin"):
        if key not in values:
            raise ConfigError(f"[{key}] is missing; see the examples in robot_bridge/cells")
    name = values["cell"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"cell is {name!r}, expected a name of lower-case letters, digits, '-' and '_'")
    parts: dict[str, Any] = {
        key: build_options(kind, _table(values.get(key, {}), f"[{key}]"), f"[{key}]") for key, kind in _PARTS.items()
    }
    cameras = {key: _device(each, f"[camera.{key}]") for key, each in _table(values["camera"], "[camera]").items()}
    if "main" not in cameras:
        raise ConfigError(f"[camera.main] is missing; found {sorted(cameras) or 'no camera'}")
    arm, gripper = _device(values["arm"], "[arm]"), _device(values["gripper"], "[gripper]")
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    for device in (arm, gripper, *cameras.values()):
        digest.update(_calibration(device))
    cell = CellFile(name, digest.hexdigest(), arm, gripper, cameras, **parts)
    if cell.limits.slow_episodes < _FEWEST_SLOW and not _is_simulated(arm):
        raise ConfigError(
            f"[limits] slow_episodes is {cell.limits.slow_episodes}, expected at least {_FEWEST_SLOW}: only an arm "
            "whose controller is simulated on this machine, at 127.x but not 127.0.0.1, may do without slow mode"
        )
    cell_config(cell)  # raises where bin, limits and heights do not fit together
    clear_m = cell.home.clear_pose_m
    if clear_m is not None and not Region(cell.bin, cell.limits).outside_m(clear_m) <= BOX_TOLERANCE_M:
        raise ConfigError(
            f"[home] clear_pose_m is {clear_m}, expected a place in metres where the tool may be: over the bin, or up "
            f"to around_m {cell.bin.around_m} beside it and rim_clear_m {cell.limits.rim_clear_m} above its rim"
        )
    hosts = arm.options.get("host"), gripper.options.get("host")
    if (arm.driver, gripper.driver) == ("ur", "robotiq-ur-socket") and None not in hosts and hosts[0] != hosts[1]:
        raise ConfigError(
            f"[gripper] host is {hosts[1]!r}, expected the arm's own, {hosts[0]!r}: its controller serves the gripper, "
            "and another arm's fingers would be moved"
        )
    return cell


def _is_simulated(arm: Table) -> bool:
    """Whether an arm cannot break anything: the simulator in this process, or a controller at a loopback address.

    Not at 127.0.0.1, where tunnels to real arms end and a real arm's HTTP server listens.
    """
    given = [str(arm.options[key]) for key in ("host", "url") if arm.options.get(key)]
    return arm.driver == "sim" or (bool(given) and all(map(_is_here, given)))


def _is_here(place: str) -> bool:
    """Whether the host of a place, in numbers, is this machine, but not its usual loopback address."""
    try:
        address = ipaddress.IPv4Address(urlsplit(place).hostname or place)
    except ValueError:
        return False
    return address.is_loopback and address != ipaddress.IPv4Address("127.0.0.1")


def _calibration(device: Table) -> bytes:
    """Returns the digest of a device's calibration; nothing without one. What cannot be read is its driver's to say."""
    try:
        return hashlib.sha256(Path(device.options[_CALIBRATION]).read_bytes()).digest()
    except (KeyError, TypeError, ValueError, OSError):
        return b""


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is {value!r}, expected a table")
    return value


def _device(value: Any, name: str) -> Table:
    options = dict(_table(value, name))
    driver = options.pop("driver", None)
    if not isinstance(driver, str):
        raise ConfigError(f'{name} driver is {driver!r}, expected the name of a driver, as in driver = "ur"')
    return Table(driver, options)
