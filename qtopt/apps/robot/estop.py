"""Every stop there is, sent at once, without the collector; then the lock, then a look whether the arm stands."""

import contextlib
import os
import signal
import time
from typing import Final

from qtopt.apps.process import say
from qtopt.apps.robot import Estop
from qtopt.errors import ConfigError, RobotError
from robot_bridge.cell import parts
from robot_bridge.cell.places import Places
from robot_bridge.cell.processes import arm_lives, arms_of
from robot_bridge.cell.records import STILL_M_S, speed_m_s
from robot_bridge.cell_file import CellFile, load_cell_file
from robot_bridge.contracts import StopChannel

_CONNECT_S: Final = 5.0
_LOCK_S: Final = 10.0
_WATCH_S: Final = 3.0
_STILL_FOR_S: Final = 0.3


def main(config: Estop) -> int:
    """Stops and locks; returns 0 only if the arm was seen to stand and the lock is on the disk.

    Else 4, or 3 where the arm cannot be reached.

    Raises:
        ConfigError: the cell file cannot be used, and no arm's process was started with it.
    """
    try:
        cell = load_cell_file(config.cell)
    except ConfigError as error:
        if not (processes := arms_of(config.cell)):
            raise
        for process in processes:
            _kill(process)
        say(f"NOT SEEN TO STAND: the cell file cannot be used any more: {error}. Press the button")
        say("the arm's process was ended; its safety process stops the arm and locks motion")
        return 4
    try:
        places = Places(cell)
    except ConfigError as error:
        say(f"NOT LOCKED: {error}")
        return _stop(cell) or 4
    locking = places.latch_aside("estop", "qtopt robot estop was called")
    # The quickest way first: at the death of the arm's process the safety process, connected already, stops the arm.
    running = places.running()
    if running is None:
        say(f"no collector is noted in {places.root}; one that uses another directory is neither ended nor locked")
    elif arm_lives(running):
        _kill(running.arm)
    code = _stop(cell)
    locking.join(_LOCK_S)
    if locking.is_alive() or not places.latch_file.is_kept():
        say(f"NOT LOCKED: {places.root} did not take the lock: let nobody start the collector before you looked")
        return code or 4
    say("motion is locked until qtopt robot ack")
    return code


def _stop(cell: CellFile) -> int:
    """Stops by the second way, and looks whether the arm stands."""
    try:
        line = parts.make_stop_channel(cell)
        line.connect(_CONNECT_S)
        accepted = line.stop()
    except (ConfigError, RobotError) as error:
        say(f"NOT SEEN TO STAND: the arm cannot be reached: {error}. Press the button")
        return 3
    try:
        stands = _stands(line)
    finally:
        line.close()
    took = "a stop was accepted" if accepted else "no stop was accepted"
    if stands:
        say(f"the arm stands ({took})")
        return 0
    say(f"NOT SEEN TO STAND ({took}). Press the button")
    return 4


def _kill(process: int) -> None:
    """Ends the arm's process for good; the safety process takes note and stops the arm, too."""
    try:
        os.kill(process, signal.SIGKILL)
    except PermissionError:
        say("the arm's process belongs to another account and goes on; it is stopped by its second way only")
    except ProcessLookupError:
        pass  # gone already


def _stands(line: StopChannel) -> bool:
    """Returns whether new reports show the arm standing for a while; stops again until they do."""
    since, clock_s = None, None
    deadline = time.monotonic() + _WATCH_S
    while time.monotonic() < deadline:
        with contextlib.suppress(RobotError):
            state = line.state()
            new = clock_s is None or state.t_controller_s > clock_s
            if new and speed_m_s(state) < STILL_M_S:
                since = since if since is not None else time.monotonic()
                if time.monotonic() - since >= _STILL_FOR_S and clock_s is not None:
                    return True
            elif new:
                since = None
                line.stop()
            clock_s = state.t_controller_s
        time.sleep(0.02)
    return False
