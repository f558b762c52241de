"""A person's acknowledgement: the cause must be gone, as a monitor of its own sees it over the stop channel."""

import time
from typing import Final

from qtopt.apps.process import say
from qtopt.apps.robot import Ack
from qtopt.apps.robot.status import locked_in_memory, newest_report
from qtopt.errors import RobotError
from robot_bridge.cell import parts
from robot_bridge.cell.places import Places
from robot_bridge.cell.processes import arm_lives
from robot_bridge.cell_file import CellFile, load_cell_file
from robot_bridge.contracts import ArmState, StopChannel
from robot_bridge.drivers.no_stop import NoStopChannel

_CONNECT_S: Final = 5.0
_LOOK_S: Final = 1.0


def main(config: Ack) -> int:
    """Unlocks motion; raises RobotError while the cause is still there, or the lock is not on the disk yet."""
    cell = load_cell_file(config.cell)
    places = Places(cell)
    stamp, latch, running = places.latch_file.stamp(), places.latched(), places.running()
    if latch is None:
        told = locked_in_memory(running)
        if told is not None:
            raise RobotError(
                f"the cell's processes are locked by {told.rule}: {told.reason}; the disk says nothing of it: it was "
                f"acknowledged just now, or cannot be written yet. See that {places.root} can be, and try again"
            )
        say("motion is not locked" + ("" if running else f", as {places.root} has it; no collector is noted there"))
        return 0
    line = parts.make_stop_channel(cell)
    if isinstance(line, NoStopChannel) and (running is None or not arm_lives(running)):
        say(
            f"nothing here can see the arm: its process has ended, as it does to stop an arm like this ({line.why}). "
            "What you saw counts; the next process looks before anything moves"
        )
    else:
        _look(cell, places, line, config)
    places.latch_file.acknowledge(config.operator, config.reason, stamp)
    say(f"unlocked by {config.operator}: {config.reason}. It was locked by {latch.rule}: {latch.reason}")
    return 0


def _look(cell: CellFile, places: Places, line: StopChannel, config: Ack) -> None:
    """Watches the arm for a second; raises RobotError where it cannot be seen, or is not fit to be unlocked."""
    monitor = parts.make_monitor(cell, places, frozenset())
    line.connect(_CONNECT_S)
    try:
        deadline = time.monotonic() + _LOOK_S
        while time.monotonic() < deadline:
            monitor.observe(_seen(line, places), time.monotonic_ns())
            time.sleep(0.01)
    finally:
        line.close()
    monitor.acknowledge(config.operator, config.reason)


def _seen(line: StopChannel, places: Places) -> ArmState | None:
    """Returns the newest report; of an arm without a second way to it, what its own process saw."""
    if isinstance(line, NoStopChannel):
        report = newest_report(places.running())
        return None if report is None else report.arm
    try:
        return line.state()
    except RobotError:
        return None
