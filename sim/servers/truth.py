"""What simulated controllers do with the plant behind: tell its truth and the tool's way, and lead it."""

import dataclasses
import time
from typing import Any, Final

from qtopt.errors import RobotError
from robot_bridge.robot import ToolPose
from sim.plant import Plant

_THERE_S: Final = 20.0
_LOOK_S: Final = 0.01


def plant_truth(plant: Plant) -> dict[str, Any]:
    """Returns what is so now: metres, seconds, newtons, in JSON."""
    state = plant.state()
    return {
        "time_s": state.time_s,
        "tool": [state.tool.x_m, state.tool.y_m, state.tool.z_m, state.tool.yaw_rad],
        "twist": list(state.twist),
        "wrench": list(state.wrench),
        "moving": state.moving,
        "holding": state.holding,
        "width_m": state.width_m,
        "objects": [[number, *position] for number, position in plant.objects()],
    }


def plant_trace(plant: Plant, since_s: float) -> dict[str, Any]:
    """Returns clock (``time.monotonic``) [s] and place of the tool [m] after each time step later than ``since_s``."""
    return {"trace": plant.trace(since_s)}


def lead_up(plant: Plant, lift_m: float) -> None:
    """Leads the tool straight up, as a person does with the pendant, where anything is asked for."""
    if lift_m:
        here = plant.state().told
        plant.move_to(dataclasses.replace(here, z_m=here.z_m + lift_m), 0.05, 0.5)


def lead_to(plant: Plant, start: ToolPose) -> None:
    """Brings the hand to where an arm holds it in the beginning; raises RobotError where it does not come to rest."""
    plant.move_to(start, 0.25, 1.0)
    deadline = time.monotonic() + _THERE_S
    while plant.state().moving or plant.state().gripper_moving:
        if time.monotonic() > deadline:
            raise RobotError(f"the simulated hand did not come to rest at {start} within {_THERE_S:g} s")
        time.sleep(_LOOK_S)
