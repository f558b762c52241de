"""Judge and keeper that need no pictures: what the fingers' opening says, and back into the bin with what was lifted."""

import time
from collections.abc import Mapping
from typing import Final

import numpy as np

from qtopt.types import JsonValue, Outcome
from robot_bridge.cell.robot import CellRobot
from robot_bridge.cell_file import CellFile, cell_config
from robot_bridge.robot import ToolPose
from robot_bridge.safety.facts import Phase

_SETTLE_S: Final = 0.5


class WidthJudge:
    """Tells by the opening of closed fingers whether they hold something; satisfies ``SuccessDetector``.

    Args:
        robot: the cell's.
        cell: what the cell file says.
    """

    def __init__(self, robot: CellRobot, cell: CellFile) -> None:
        self._robot, self._empty_m = robot, cell_config(cell).empty_width_m

    def lifted(self) -> bool:
        """Returns whether the fingers are closed on something."""
        state = self._robot.state()
        return state.gripper_closed and state.gripper_width_m >= self._empty_m

    def judge(self) -> bool | None:
        """Waits half a second and looks once more."""
        time.sleep(_SETTLE_S)
        return self.lifted()


class DropBack:
    """Puts what was lifted back into the bin, at a random place; satisfies ``BinKeeper``.

    Args:
        robot: the cell's.
        cell: what the cell file says.
        seed: of the places.
    """

    def __init__(self, robot: CellRobot, cell: CellFile, seed: int = 0) -> None:
        self._robot, self._cell = robot, cell
        self._rng = np.random.default_rng(seed)

    def prepare(self, seed: int | None) -> Mapping[str, JsonValue]:
        """Returns the cell's name and the hash of its configuration; a person fills the bin."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        return {"cell": self._cell.cell, "config_hash": self._cell.config_hash}

    def finish(self, outcome: Outcome) -> None:
        """Drops what the fingers hold from a small height; an aborted episode leaves them as they are."""
        if outcome is Outcome.ABORTED:
            return
        self._robot.enter(Phase.TRANSIT)
        if outcome not in (Outcome.SUCCESS, Outcome.UNKNOWN):
            return
        config = cell_config(self._cell)
        x_m, y_m = (float(value) for value in self._rng.uniform(config.limits.low_m[:2], config.limits.high_m[:2]))
        tool = self._robot.state().tool
        above = ToolPose(x_m, y_m, max(tool.z_m, self._robot.travel_z_m), tool.yaw_rad)
        self._robot.move(ToolPose(tool.x_m, tool.y_m, above.z_m, tool.yaw_rad))
        self._robot.move(above)
        z_m = self._cell.bin.floor_z_m + self._cell.success.drop_height_m
        self._robot.move(ToolPose(x_m, y_m, z_m, tool.yaw_rad))
        self._robot.grip(close=False)
        self._robot.move(above)
