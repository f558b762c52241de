"""Which drivers there are, and how a table of the cell file becomes one.

The project's own are listed here; a third party's come through the entry-point groups of ``robot_bridge.driver``, see
docs/drivers-own.md.
A driver's module is imported when it is asked for, the vendor's library not before its ``open`` is called.
"""

import contextlib
import importlib
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from typing import Any, NamedTuple, TypeVar

from qtopt.errors import ConfigError
from robot_bridge.cell_file import CellFile, Table, build_options
from robot_bridge.driver import ARM_DRIVERS, CAMERA_DRIVERS, GRIPPER_DRIVERS, ArmDriver, CameraDriver, GripperDriver

_DRIVERS = "robot_bridge.drivers"
BUILT_IN: Mapping[str, Mapping[str, str]] = {
    ARM_DRIVERS: {
        "ur": f"{_DRIVERS}.ur:DRIVER",
        "franka": f"{_DRIVERS}.franka:DRIVER",
        "xarm": f"{_DRIVERS}.xarm:DRIVER",
        "so101": f"{_DRIVERS}.so101:DRIVER",
        "http": f"{_DRIVERS}.http_arm:DRIVER",
        "sim": "sim.driver:ARM",
    },
    GRIPPER_DRIVERS: {
        "robotiq-ur-socket": f"{_DRIVERS}.robotiq:SOCKET_DRIVER",
        "robotiq-rtu": f"{_DRIVERS}.robotiq:RTU_DRIVER",
        "franka-hand": f"{_DRIVERS}.franka:GRIPPER_DRIVER",
        "xarm": f"{_DRIVERS}.xarm:GRIPPER_DRIVER",
        "so101": f"{_DRIVERS}.so101:GRIPPER_DRIVER",
        "http": f"{_DRIVERS}.http_arm:GRIPPER_DRIVER",
        "sim": "sim.driver_gripper:GRIPPER",
    },
    CAMERA_DRIVERS: {
        "uvc": f"{_DRIVERS}.uvc:DRIVER",
        "realsense": f"{_DRIVERS}.realsense:DRIVER",
        "sim": "sim.driver_camera:CAMERA",
    },
}

D = TypeVar("D", ArmDriver, GripperDriver, CameraDriver)


class Resolved(NamedTuple):
    """The drivers of a cell, each with its checked options; nothing is open yet."""

    arm: ArmDriver
    arm_options: Any
    gripper: GripperDriver
    gripper_options: Any
    cameras: Mapping[str, tuple[CameraDriver, Any]]


def arm_driver(name: str) -> ArmDriver:
    """Returns an arm's driver; raises ConfigError naming those that are installed."""
    return _load(ARM_DRIVERS, name, ArmDriver)


def gripper_driver(name: str) -> GripperDriver:
    """Returns a gripper's driver; raises ConfigError naming those that are installed."""
    return _load(GRIPPER_DRIVERS, name, GripperDriver)


def camera_driver(name: str) -> CameraDriver:
    """Returns a camera's driver; raises ConfigError naming those that are installed."""
    return _load(CAMERA_DRIVERS, name, CameraDriver)


def driver_options(driver: ArmDriver | GripperDriver | CameraDriver, table: Table, where: str) -> Any:
    """Returns the driver's options from its table; raises ConfigError naming a bad key or value."""
    return build_options(driver.options, table.options, where)


def resolve(cell: CellFile) -> Resolved:
    """Returns every driver of a cell with its options; raises ConfigError for the first that does not fit."""
    arm, gripper = arm_driver(cell.arm.driver), gripper_driver(cell.gripper.driver)
    cameras = {}
    for name, table in cell.cameras.items():
        driver = camera_driver(table.driver)
        cameras[name] = (driver, driver_options(driver, table, f"[camera.{name}]"))
    return Resolved(
        arm,
        driver_options(arm, cell.arm, "[arm]"),
        gripper,
        driver_options(gripper, cell.gripper, "[gripper]"),
        cameras,
    )


def told(cell: CellFile, drivers: Resolved) -> str:
    """Returns a cell's drivers in words, with what is installed of the libraries that they need."""
    extras = {cell.arm.driver: drivers.arm.extra, cell.gripper.driver: drivers.gripper.extra}
    extras |= {cell.cameras[name].driver: driver.extra for name, (driver, _) in drivers.cameras.items()}
    return "; ".join(", ".join((name, *_libraries(extra))) for name, extra in extras.items())


def _libraries(extra: str) -> Iterator[str]:
    for line in requires("qtopt") or ():
        if re.search(rf"extra == ['\"]{extra}['\"]", line):
            name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
            with contextlib.suppress(PackageNotFoundError):
                yield f"{name} {version(name)}"


def installed(group: str) -> dict[str, str]:
    """Returns name and ``module:object`` of each driver of an entry-point group; the project's own come first."""
    others = {entry.name: entry.value for entry in entry_points(group=group)}
    return {**others, **BUILT_IN[group]}


def missing_library(driver: ArmDriver | GripperDriver | CameraDriver, error: ImportError) -> ConfigError:
    """Returns the error for a vendor's library that is not there: what to install."""
    extra = f"pip install '.[{driver.extra}]'" if driver.extra else "see the driver's own documentation"
    return ConfigError(f"a library of this driver is not installed ({error}); {extra}")


def _load(group: str, name: str, kind: type[D]) -> D:
    known = installed(group)
    if name not in known:
        what = group.rpartition(".")[2]
        raise ConfigError(
            f"driver {name!r} is unknown; {what} known here: {', '.join(sorted(known))}. Another party's driver "
            f"appears once its package is installed here (entry-point group {group})"
        )
    module_name, _, attribute = known[name].partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"driver {name!r} ({known[name]}) cannot be loaded: {error}") from error
    if not isinstance(found, kind):
        raise ConfigError(f"driver {name!r} ({known[name]}) is a {type(found).__name__}, expected {kind.__name__}")
    return found
