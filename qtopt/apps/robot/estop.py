"""Every stop there is, sent at once, without the collector; then the lock, then a look whether the arm stands."""

import contextlib
import os
import signal
import time
from typing import Final

from qtopt.apps.process import say
from qtopt.apps.robot import Estop
from qtopt.errors import RobotError
from robot_bridge.cell import parts
from robot_bridge.cell.places import Places
from robot_bridge.cell.records import speed_m_s
from robot_bridge.cell_file import load_cell_file
from robot_bridge.contracts import StopChannel

_CONNECT_S: Final = 5.0
_LOCK_S: Final = 10.0
_WATCH_S: Final = 3.0
_STILL_FOR_S: Final = 0.3
_STILL_M_S: Final = 0.002


def main(config: Estop) -> int:
    """Stops and locks; returns 0 only if standstill was observed, else 4, or 3 where the arm cannot be reached."""
    cell = load_cell_file(config.cell)
    places = Places(cell)
    # The quickest way first: at the death of the arm's process the safety process, connected already, stops the arm.
    running = places.running()
    _kill(running.arm if running else 0)
    locking = places.latch_aside("estop", "qtopt robot estop was called")
    try:
        return _stop(parts.make_stop_channel(cell))
    finally:
        locking.join(_LOCK_S)
        if locking.is_alive():
            say(f"the lock is not on the disk after {_LOCK_S:g} s: let nobody start the collector before you looked")


def _stop(line: StopChannel) -> int:
    """Stops by the second way, and looks whether the arm stands."""
    try:
        line.connect(_CONNECT_S)
        accepted = line.stop()
    except RobotError as error:
        say(f"NOT SEEN TO STAND: the arm cannot be reached: {error}. Press the button")
        return 3
    try:
        stands = _stands(line)
    finally:
        line.close()
    took = "a stop was accepted" if accepted else "no stop was accepted"
    if stands:
        say(f"the arm stands ({took}); motion is locked until qtopt robot ack")
        return 0
    say(f"NOT SEEN TO STAND ({took}). Press the button; motion is locked until qtopt robot ack")
    return 4


def _kill(process: int) -> None:
    """Ends the arm's process for good; the safety process takes note and stops the arm, too."""
    if process > 0:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)


def _stands(line: StopChannel) -> bool:
    """Returns whether new reports show the arm standing for a while; stops again until they do."""
    since, clock_s = None, None
    deadline = time.monotonic() + _WATCH_S
    while time.monotonic() < deadline:
        with contextlib.suppress(RobotError):
            state = line.state()
            new = clock_s is None or state.t_controller_s > clock_s
            if new and speed_m_s(state) < _STILL_M_S:
                since = since if since is not None else time.monotonic()
                if time.monotonic() - since >= _STILL_FOR_S and clock_s is not None:
                    return True
            elif new:
                since = None
                line.stop()
            clock_s = state.t_controller_s
        time.sleep(0.02)
    return False
