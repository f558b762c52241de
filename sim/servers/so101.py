"""An SO-101 on a pseudo terminal with a plant behind it: where its servos are, there the plant's hand is led.

The arm stands in front of the bin; its forward kinematics are written here from the published lengths, without the
driver's code. A servo that presses on something with all its strength stalls, and the fingers are the plant's.
"""

import json
import math
import os
import pty
import select
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from qtopt.errors import ConfigError, RobotError
from robot_bridge.robot import ToolPose
from sim.plant import Plant, PlantState
from sim.servers.feetech import GOAL, TORQUE_ENABLE, TORQUE_LIMIT, Bus, Servo
from sim.servers.truth import lead_to, plant_trace, plant_truth
from sim.servers.ur_lines import TextServer, faults

BASE_X_M, BASE_Z_M = 0.41, 0.10
"""Where the arm's base stands in the plant's frame: on a plinth, as with the tool straight down it reaches no higher
than 0.08 m above its base."""
_START_M: Final = (0.16, 0.06)
_PAN_X_M, _SHOULDER_R_M, _SHOULDER_Z_M = 0.0388, 0.0304, 0.1166
_UPPER_M, _FORE_M, _TOOL_M = 0.1160, 0.1350, 0.1592
_MIDDLE, _PER_RAD = 2048, 4096 / (2 * math.pi)
_NAMES: Final = ("pan", "lift", "elbow", "flex", "roll")
_ZEROS: Final = (2048, 1024, 1024, 2048, 2048)
_DIRECTIONS: Final = (1, 1, -1, 1, 1)
_RANGES_RAD: Final = (1.92, 1.74, 1.69, 1.65, 2.74)
"""To either side of the middle, as the published description has them."""
_CLOSED, _OPEN, _OPEN_M = 1500, 2700, 0.08
_STRENGTH_N: Final = 15.0
_JAW_N: Final = 30.0
_FOLLOW_M_S, _FOLLOW_M_S2, _FOLLOW_RAD_S = 0.5, 20.0, 4.0
_IDLE_S: Final = 0.01
_PIECE, _PIECE_PAUSE_S = 7, 0.0005
_JUMP_STEPS: Final = 400
"""Of the pan servo: some 80 mm at the tool."""
_OVERLOAD: Final = 0x20
_JAW: Final = 6


class So101Cell:
    """The bus, its fault port and the arm behind; may be used in a ``with`` statement.

    Args:
        plant: running; the arm leads its hand from now on.
        host: a loopback address for the fault port.
        port: where the link to the pseudo terminal is made, as ``/dev/serial/by-id`` has links.
        spoil_camera: makes the camera fail in the way that a word names.

    Attributes:
        fault_port: of the faults.
    """

    def __init__(self, plant: Plant, host: str, port: Path, spoil_camera: Callable[[str], None]) -> None:
        self._plant, self._port, self._spoil_camera = plant, port, spoil_camera
        start = steps_at(*_START_M)
        lead_to(plant, tool_at(start))
        self._bus = Bus([*start, _OPEN])
        for servo in self._bus.servos.values():
            _aim(servo, servo.position)
        self._jaw_goal = -1
        self._split = self._jammed = False
        self._lock = threading.Lock()
        self._ends: tuple[int, ...] = self._plug_in()
        self._away_until = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="so101", daemon=True)
        self._thread.start()
        self._faults = TextServer((host, 0), faults(self.inject))
        self.fault_port: int = self._faults.server_address[1]

    def __enter__(self) -> "So101Cell":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the port and the pseudo terminal; the hand stays where it is."""
        self._faults.drop_connections()
        self._faults.shutdown()
        self._faults.server_close()
        self._closing.set()
        self._thread.join()
        self._pull_out()

    def inject(self, request: dict[str, Any]) -> dict[str, Any]:
        """Makes something go wrong, or right again. Raises ConfigError for no such fault."""
        fault, switch = str(request.get("fault")), bool(request.get("on", True))
        actions: dict[str, Callable[[], dict[str, Any] | None]] = {
            "truth": lambda: plant_truth(self._plant),
            "trace": lambda: plant_trace(self._plant, float(request["since_s"])),
            "silent": lambda: setattr(self._bus, "silent", switch),
            "split_frames": lambda: setattr(self, "_split", switch),
            "damaged_replies": lambda: setattr(self._bus, "damage", int(request["count"])),
            "drop_connections": lambda: self._plug_again(float(request.get("away_s", 0.0))),
            "servo_overload": lambda: setattr(self._bus.servos[2], "fault", _OVERLOAD if switch else 0),
            "servo_silent": lambda: setattr(self._bus.servos[3], "muted", switch),
            "pose_jump": lambda: self._jump(_JUMP_STEPS if switch else 0),
            "push": lambda: self._plant.push(request["force_n"], float(request.get("grows_s", 0.0))),
            "slip": self._plant.slip,
            "person": self._mend,
            "gripper": lambda: self._spoil_gripper(str(request["what"]) if switch else ""),
            "camera": lambda: self._spoil_camera(str(request["what"]) if switch else "none"),
            "refill": lambda: self._plant.refill(request.get("seed")),
        }
        if fault not in actions:
            raise ConfigError(f"fault is {fault!r}, expected one of {', '.join(sorted(actions))}")
        if fault in ("truth", "trace"):
            return actions[fault]() or {}
        with self._lock:
            return actions[fault]() or {}

    def _plug_in(self) -> tuple[int, int]:
        ends = pty.openpty()
        tty.setraw(ends[1])
        os.set_blocking(ends[0], False)  # what was ready may have been pulled out since
        self._port.unlink(missing_ok=True)
        self._port.symlink_to(os.ttyname(ends[1]))
        return ends

    def _pull_out(self) -> None:
        for end in self._ends:
            os.close(end)
        self._ends = ()

    def _plug_again(self, away_s: float) -> None:
        """The board loses its connection, and is found again as another device, after ``away_s``."""
        self._pull_out()
        self._port.unlink(missing_ok=True)
        self._away_until = time.monotonic() + away_s

    def _jump(self, steps: int) -> None:
        """The pan servo's sensor slips; put right, it stays where it is."""
        pan = self._bus.servos[1]
        if not steps:
            _aim(pan, pan.word(GOAL) - pan.slip)
        pan.slip = steps

    def _spoil_gripper(self, what: str) -> None:
        self._bus.servos[_JAW].muted, self._jammed = what == "silent", what == "jammed"

    def _mend(self) -> None:
        for servo in self._bus.servos.values():
            servo.fault, servo.muted = 0, False

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                ready, _, _ = select.select(self._ends[:1], [], [], _IDLE_S)
                with self._lock:
                    self._advance()
                    if not self._ends and time.monotonic() >= self._away_until:
                        self._ends = self._plug_in()
                    if ready and self._ends:
                        self._say(self._bus.hear(os.read(self._ends[0], 4096)))
            except OSError:  # it was pulled out meanwhile, or nobody has it open
                time.sleep(_IDLE_S)

    def _say(self, answer: bytes) -> None:
        pieces = range(0, len(answer), _PIECE if self._split else len(answer) or 1)
        for start in pieces:
            os.write(self._ends[0], answer[start : start + pieces.step])
            if self._split:
                time.sleep(_PIECE_PAUSE_S)

    def _advance(self) -> None:
        joints = [self._bus.servos[ident] for ident in range(1, _JAW)]
        before = [servo.position for servo in joints]
        self._bus.advance()
        state = self._plant.state()
        if not self._follow(tool_at([servo.position for servo in joints]), state):
            for servo, position in zip(joints, before, strict=True):
                servo.position, servo.velocity = position, 0.0
        self._move_jaws(self._bus.servos[_JAW], state.width_m)

    def _follow(self, target: ToolPose, state: PlantState) -> bool:
        """Leads the hand to where the servos are; returns False where they stall: against a force, or out of reach."""
        force_n = np.array(state.wrench[:3])
        way_m = target.array()[:3] - state.tool.array()[:3]
        if np.linalg.norm(force_n) > _STRENGTH_N and force_n @ way_m < 0:
            return False
        try:
            self._plant.servo_to(target, _FOLLOW_M_S, _FOLLOW_M_S2, _FOLLOW_RAD_S)
        except RobotError:
            return False
        return True

    def _move_jaws(self, jaw: Servo, width_m: float) -> None:
        goal = jaw.word(GOAL)
        if jaw.memory[TORQUE_ENABLE] and goal != self._jaw_goal and not self._jammed:
            force_n = _JAW_N * jaw.word(TORQUE_LIMIT) / 1000
            self._plant.grip(_OPEN_M * (goal - _CLOSED) / (_OPEN - _CLOSED), 0.08, force_n)
            self._jaw_goal = goal
        jaw.position = _CLOSED + (_OPEN - _CLOSED) * width_m / _OPEN_M


def write_calibration(path: Path) -> None:
    """Writes the driver's calibration file of this arm."""
    joints = {}
    for index, (name, zero, way, range_rad) in enumerate(zip(_NAMES, _ZEROS, _DIRECTIONS, _RANGES_RAD, strict=True)):
        reach = round(range_rad * _PER_RAD)
        ends = {"low_steps": _MIDDLE - reach, "high_steps": _MIDDLE + reach}
        joints[name] = {"servo": index + 1, "zero_steps": zero, "direction": way, **ends}
    jaw = {"servo": _JAW, "closed_steps": _CLOSED, "open_steps": _OPEN, "open_width_m": _OPEN_M}
    path.write_text(json.dumps({**joints, "gripper": jaw}))


def _aim(servo: Servo, steps: float) -> None:
    servo.memory[GOAL : GOAL + 2] = round(steps).to_bytes(2, "little")


def steps_at(x_m: float, z_m: float) -> list[float]:
    """Returns the steps of the five servos with the tool straight down at x, z [m] in the base frame, y = 0."""
    r, z = x_m - _PAN_X_M - _SHOULDER_R_M, z_m + _TOOL_M - _SHOULDER_Z_M
    elbow = -math.acos((r * r + z * z - _UPPER_M**2 - _FORE_M**2) / (2 * _UPPER_M * _FORE_M))
    lift = math.atan2(z, r) - math.atan2(_FORE_M * math.sin(elbow), _UPPER_M + _FORE_M * math.cos(elbow))
    angles = (0.0, lift, elbow, -math.pi / 2 - lift - elbow, 0.0)
    return [zero + way * at * _PER_RAD for zero, way, at in zip(_ZEROS, _DIRECTIONS, angles, strict=True)]


def tool_at(steps: list[float]) -> ToolPose:
    """Returns the tool point in the plant's frame at five servos' steps; a tool that is not vertical counts as one."""
    pan, lift, elbow, flex, roll = (
        way * (at - zero) / _PER_RAD for zero, way, at in zip(_ZEROS, _DIRECTIONS, steps, strict=True)
    )
    fore, tool = lift + elbow, lift + elbow + flex
    r = _SHOULDER_R_M + _UPPER_M * math.cos(lift) + _FORE_M * math.cos(fore) + _TOOL_M * math.cos(tool)
    z = _SHOULDER_Z_M + _UPPER_M * math.sin(lift) + _FORE_M * math.sin(fore) + _TOOL_M * math.sin(tool)
    return ToolPose(BASE_X_M + _PAN_X_M + r * math.cos(pan), r * math.sin(pan), BASE_Z_M + z, pan + roll)
