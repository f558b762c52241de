"""Brings the arm to its clear pose, from wherever straight up is known to be free."""

import contextlib

from qtopt.apps.process import begin_motion, say
from qtopt.apps.robot import Home
from qtopt.errors import RobotError
from robot_bridge.cell.places import Places
from robot_bridge.cell.processes import CellProcesses
from robot_bridge.cell.robot import CellRobot
from robot_bridge.cell_file import load_cell_file


def main(config: Home) -> int:
    """Goes home; raises RobotError where a person has to move the arm first."""
    begin_motion("home")
    cell = load_cell_file(config.cell)
    places = Places(cell)
    latch = places.latched()
    if latch is not None:
        raise RobotError(f"motion is locked by {latch.rule}: {latch.reason}; look at the cell, then qtopt robot ack")
    with (
        places.sole_client(),
        contextlib.closing(CellRobot(cell, CellProcesses(config.cell, cell, places))) as robot,
    ):
        tool = robot.go_clear()
        say(f"the arm stands at x {tool.x_m:.3f}, y {tool.y_m:.3f}, z {tool.z_m:.3f} m")
    return 0
