"""A person's acknowledgement: the cause must be gone, as a monitor of its own sees it over the stop channel."""

import time
from typing import Final

from qtopt.apps.process import say
from qtopt.apps.robot import Ack
from qtopt.apps.robot.status import newest_report
from qtopt.errors import RobotError
from robot_bridge.cell import parts
from robot_bridge.cell.places import Places
from robot_bridge.cell_file import load_cell_file
from robot_bridge.contracts import ArmState, StopChannel
from robot_bridge.drivers.no_stop import NoStopChannel

_CONNECT_S: Final = 5.0
_LOOK_S: Final = 1.0


def main(config: Ack) -> int:
    """Unlocks motion; raises RobotError while the cause is still there."""
    cell = load_cell_file(config.cell)
    places = Places(cell)
    latch = places.latched()
    if latch is None:
        say("motion is not locked")
        return 0
    monitor = parts.make_monitor(cell, places, frozenset())
    line = parts.make_stop_channel(cell)
    line.connect(_CONNECT_S)
    try:
        deadline = time.monotonic() + _LOOK_S
        while time.monotonic() < deadline:
            monitor.observe(_seen(line, places), time.monotonic_ns())
            time.sleep(0.01)
    finally:
        line.close()
    if not (isinstance(line, NoStopChannel) and places.running() is None):  # else nobody can say anything of the arm
        monitor.acknowledge(config.operator, config.reason)
    places.latch_file.acknowledge(config.operator, config.reason)
    say(f"unlocked by {config.operator}: {config.reason}. It was locked by {latch.rule}: {latch.reason}")
    return 0


def _seen(line: StopChannel, places: Places) -> ArmState | None:
    """Returns the newest report; of an arm without a second way to it, what its own process saw, where that lives."""
    if isinstance(line, NoStopChannel):
        report = newest_report(places.running())
        return None if report is None else report.arm
    try:
        return line.state()
    except RobotError:
        return None
