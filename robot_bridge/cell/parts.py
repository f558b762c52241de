"""From a cell file to the parts of a process: devices and the monitor."""

import time
from pathlib import Path

from qtopt.errors import ConfigError
from robot_bridge import registry
from robot_bridge.cell.places import Places
from robot_bridge.cell_file import CellFile, load_cell_file
from robot_bridge.contracts import Arm, Gripper, StopChannel
from robot_bridge.safety.facts import Heartbeat
from robot_bridge.safety.monitor import CellSafetyMonitor


def load(path: Path, config_hash: str) -> CellFile:
    """Reads the cell file in a child; raises ConfigError where it is not the one that the collector read."""
    cell = load_cell_file(path)
    if cell.config_hash != config_hash:
        raise ConfigError(f"{path} was changed while the cell started; start it again")
    return cell


def make_arm(cell: CellFile) -> Arm:
    """Returns the arm, unconnected; imports the vendor's library."""
    driver = registry.arm_driver(cell.arm.driver)
    return driver.open(registry.driver_options(driver, cell.arm, "[arm]"))


def make_gripper(cell: CellFile, arm: Arm) -> Gripper:
    """Returns the gripper, unconnected."""
    driver = registry.gripper_driver(cell.gripper.driver)
    return driver.open(registry.driver_options(driver, cell.gripper, "[gripper]"), arm)


def make_stop_channel(cell: CellFile) -> StopChannel:
    """Returns the second way to the arm, unconnected."""
    driver = registry.arm_driver(cell.arm.driver)
    return driver.open_stop_channel(registry.driver_options(driver, cell.arm, "[arm]"))


def make_monitor(cell: CellFile, places: Places, watched: frozenset[Heartbeat]) -> CellSafetyMonitor:
    """Returns a monitor that starts locked where the cell is, and slow where it is new."""
    return CellSafetyMonitor(
        cell,
        episodes_done=places.episodes_done(),
        watched=watched,
        latched=places.latched(),
        stops=places.stops(time.monotonic_ns()),
    )
