"""What can be made to go wrong with a simulated xArm controller, asked for in lines of JSON on a port of its own.

A line is ``{"fault": NAME, "value": VALUE}``; the answer is ``{"ok": true}`` or ``{"error": WHY}``. ``{"truth": true}``
asks for what is really so in the simulator, ``{"trace": TIME}`` for the tool's way since then.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtopt.errors import ConfigError
from sim.plant import Plant
from sim.servers.truth import lead_up, plant_trace, plant_truth
from sim.servers.xarm_controller import COLLISION, STOPPED, Controller
from sim.servers.xarm_functions import Functions
from sim.servers.xarm_gripper import GripperBus


@dataclass
class LinkFaults:
    """What is wrong with the lines."""

    silent_reports: bool = False
    frozen_reports: bool = False
    split_frames: bool = False
    duplicate_frames: bool = False
    late_frames: float = 0.0
    """By up to so many seconds."""
    mute_control: bool = False
    nan: bool = False
    wrong_units: bool = False
    """Lengths are told in metres."""
    pose_jump_mm: float = 0.0

    def tampered(self, pose: tuple[float, ...]) -> tuple[float, ...]:
        """Returns x, y, z [mm], roll, pitch, yaw [rad] as the reports are to tell it."""
        if self.nan:
            return (math.nan,) * 6
        if self.wrong_units:
            return (*(each / 1000.0 for each in pose[:3]), *pose[3:])
        return (pose[0] + self.pose_jump_mm, *pose[1:])


class Faults:
    """The fault port's other side."""

    def __init__(
        self,
        controller: Controller,
        functions: Functions,
        bus: GripperBus,
        plant: Plant,
        drop: Callable[[float], None],
        spoil_camera: Callable[[str], None] | None,
    ) -> None:
        self.link = LinkFaults()
        self._controller, self._functions, self._bus, self._plant = controller, functions, bus, plant
        self._actions: dict[str, Callable[[Any], None]] = {
            "drop_connections": lambda value: drop(0.0 if value is True else float(value)),
            "collision": lambda value: controller.fault(COLLISION),
            "error": lambda value: controller.fault(int(value)),
            "program_stop": lambda value: self._stop(),
            "unlock_refused": lambda value: setattr(controller, "unlock_refused", bool(value)),
            "unlock_lies": lambda value: setattr(controller, "unlock_lies", bool(value)),
            "emergency_stop": lambda value: controller.press_e_stop(pressed=bool(value)),
            "push": lambda value: plant.push(value),
            "slip": lambda value: plant.slip(),
            "gripper_silent": lambda value: setattr(functions, "gripper_silent", bool(value)),
            "gripper_jammed": lambda value: setattr(bus, "jammed", bool(value)),
            "gripper_error": lambda value: setattr(bus, "error", int(value)),
            "gripper_flag": lambda value: setattr(bus, "flag", None if value is None else int(value)),
            "person": lambda value: self._person(0.0 if value is True else float(value)),
            "camera": lambda value: self._spoil(spoil_camera, str(value)),
            "refill": lambda value: plant.refill(None if value is None else int(value)),
        }

    def answer(self, line: bytes) -> bytes:
        """Carries out a line and returns the line to answer."""
        try:
            request = json.loads(line)
            if request.get("truth"):
                result = self._truth()
            elif "trace" in request:
                result = plant_trace(self._plant, float(request["trace"]))
            else:
                result = self._inject(request["fault"], request.get("value", True))
        except Exception as error:  # whatever is wrong with the request, its sender is told
            result = {"error": f"{type(error).__name__}: {error}"}
        return json.dumps(result).encode() + b"\n"

    def _inject(self, name: str, value: Any) -> dict[str, Any]:
        if name in self._actions:
            self._actions[name](value)
        elif name in LinkFaults.__dataclass_fields__:
            setattr(self.link, name, type(getattr(self.link, name))(value))
        else:
            names = sorted([*self._actions, *LinkFaults.__dataclass_fields__])
            return {"error": f"no fault {name!r}; there are {', '.join(names)}"}
        return {"ok": True}

    def _stop(self) -> None:
        """Stops as another client does."""
        self._controller.set_state(STOPPED)

    def _person(self, lift_m: float) -> None:
        self._controller.person_clears()
        lead_up(self._plant, lift_m)

    def _spoil(self, device: Callable[[str], None] | None, what: str) -> None:
        if device is None:
            raise ConfigError("this server has no camera; qtopt robot serve-sim has one")
        device(what)

    def _truth(self) -> dict[str, Any]:
        controller = self._controller
        return {
            **plant_truth(self._plant),
            "state": controller.state,
            "mode": controller.mode,
            "error": controller.error,
            "fence": controller.fence,
            "boundary_mm": controller.boundary_mm,
            "sensitivity": controller.sensitivity,
            "load": controller.load,
        }
