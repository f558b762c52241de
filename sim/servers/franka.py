"""A Franka with a plant behind it: franky-sim is its controller and arm; where its tool is, the plant's hand is led.

franky-sim speaks Franka's own protocol over MuJoCo's model of the arm. Bin, objects, hand and camera are the plant's;
what the plant's hand feels and how far its fingers are apart is what the controller then reports.
"""

import contextlib
import json
import math
import os
import select
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from qtopt.errors import ConfigError, RobotError
from robot_bridge.robot import ToolPose
from sim.plant import HOME, Plant, PlantState
from sim.servers.loopback import require_loopback
from sim.servers.truth import lead_to, plant_trace, plant_truth
from sim.servers.ur_lines import TextServer, faults

VARIABLE: Final = "FRANKY_SIM_PYTHON"
START_RAD: Final = (0.0, 0.1796, 0.0, -1.91, 0.0, 2.0896, 0.785)
"""The joints with the tool where a plant begins, ``HOME``, and the hand across."""
_PROGRAM: Final = Path(__file__).with_name("franka_controller")
_FOLLOW_M_S, _FOLLOW_M_S2, _FOLLOW_RAD_S = 1.0, 40.0, 4.0
_PERIOD_S: Final = 0.005
_SILENT_S: Final = 60.0
_LED_M_S: Final = 0.05
_STANDS: Final = np.array([2e-4, 2e-4, 2e-4, 2e-3])
"""Metres and radians that the arm trembles on the spot."""
_WIDEST_M: Final = 0.08
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1"}
_LINK: Final = ("silent", "frozen_clock", "duplicate_frames", "nan", "wrong_units", "pose_jump")
_MODES: Final = {"protective_stop": "kReflex", "safeguard": "kUserStopped", "program_stop": "kOther"}
"""A Franka has no emergency stop that it tells of as another thing than its user stop."""
_HAND: Final = ("silent", "jammed", "flag 2", "flag 3")


def interpreter() -> str | None:
    """Returns the interpreter that has franky-sim: as ``FRANKY_SIM_PYTHON`` names it, or beside ``franky-sim``."""
    program = shutil.which("franky-sim")
    return os.environ.get(VARIABLE) or (str(Path(program).resolve().parent / "python") if program else None)


class FrankySim:
    """franky-sim in its own process.

    Args:
        address: a loopback address of its own.
        joints_rad: where it begins; where franky-sim begins where there are none.

    Attributes:
        address: of its controller and hand.
        process: that it is.

    Raises:
        ConfigError: there is no interpreter that has it.
    """

    def __init__(self, address: str, joints_rad: Sequence[float] = ()) -> None:
        python = interpreter()
        if python is None:
            raise ConfigError(
                "found no franky-sim: make an environment of its own, `pip install franky-sim` into it, and set "
                f"{VARIABLE} to its interpreter"
            )
        self.address = require_loopback(address)
        self.process = subprocess.Popen(
            [python, str(_PROGRAM), address, *map(str, joints_rad)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: each for name, each in os.environ.items() if name != "PYTHONPATH"} | _ONE_THREAD,
        )
        self._asking = threading.Lock()
        if self._next_line() != "serving\n":
            self.close()
            raise RobotError(f"franky-sim, run by {python}, ended before it served; its words are above")

    def ask(self, **order: Any) -> dict[str, Any]:
        """Gives an order as ``franka_controller`` has them; returns where arm and hand are. Raises RobotError."""
        assert self.process.stdin is not None
        with self._asking:
            try:
                self.process.stdin.write(json.dumps(order) + "\n")
                self.process.stdin.flush()
                answer: dict[str, Any] = json.loads(self._next_line())
            except (OSError, ValueError) as error:
                raise RobotError("franky-sim has ended; its words are above") from error
        return answer

    def _next_line(self) -> str:
        """Returns what it says next, one line to each order; ends it where it says nothing, and returns nothing."""
        assert self.process.stdout is not None
        heard, _, _ = select.select([self.process.stdout], [], [], _SILENT_S)
        if not heard:
            self.process.kill()
        return self.process.stdout.readline()

    def close(self) -> None:
        """Ends the process; a second call does nothing."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class FrankaCell:
    """The controller, its fault port and the plant behind; may be used in a ``with`` statement.

    Args:
        plant: running; the arm leads its hand from now on.
        host: a loopback address of its own.
        spoil_camera: makes the camera fail in the way that a word names.

    Attributes:
        fault_port: of the faults.
    """

    def __init__(self, plant: Plant, host: str, spoil_camera: Callable[[str], None]) -> None:
        self._plant, self._spoil_camera = plant, spoil_camera
        self._controller = FrankySim(host, START_RAD)
        self._yaw_rad, self._gripped, self._spoilt = HOME.yaw_rad, 0, dict.fromkeys(_LINK, False)
        self._sent = self._tool(self._controller.ask())
        plant.grip(_WIDEST_M, 0.1, 20.0)
        lead_to(plant, self._sent)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="franka", daemon=True)
        self._thread.start()
        self._faults = TextServer((host, 0), faults(self.inject))
        self.fault_port: int = self._faults.server_address[1]

    def __enter__(self) -> "FrankaCell":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Raises RobotError where franky-sim, the plant, or what leads the hand has ended."""
        self._plant.state()
        if self._controller.process.poll() is not None or not self._thread.is_alive():
            raise RobotError("franky-sim has ended, or the hand does not follow it any more; the words above say why")

    def close(self) -> None:
        """Ends franky-sim and frees the ports; the hand stays where it is."""
        self._faults.drop_connections()
        self._faults.shutdown()
        self._faults.server_close()
        self._closing.set()
        self._controller.process.kill()  # whoever waits for its answer is told
        self._thread.join()
        self._controller.close()

    def inject(self, request: dict[str, Any]) -> dict[str, Any]:
        """Makes something go wrong, or right again. Raises ConfigError for no such fault."""
        fault, switch = str(request.get("fault")), bool(request.get("on", True))
        order = self._controller.ask
        actions: dict[str, Callable[[], dict[str, Any] | None]] = {
            "truth": lambda: plant_truth(self._plant),
            "trace": lambda: plant_trace(self._plant, float(request["since_s"])),
            "unlock_refused": lambda: order(recovery="refused" if switch else "") and None,
            "unlock_lies": lambda: order(recovery="lies" if switch else "") and None,
            "drop_connections": lambda: order(drop_s=float(request.get("away_s", 0.0))) and None,
            "push": lambda: self._plant.push(request["force_n"], float(request.get("grows_s", 0.0))),
            "slip": self._plant.slip,
            "person": lambda: self._mend(float(request.get("lift_m", 0.0))),
            "gripper": lambda: self._spoil_hand(str(request["what"]) if switch else ""),
            "camera": lambda: self._spoil_camera(str(request["what"]) if switch else "none"),
            "refill": lambda: self._plant.refill(request.get("seed")),
        }
        if fault in _LINK:
            self._spoilt[fault] = switch
            order(spoil=[each for each, spoilt in self._spoilt.items() if spoilt])
        elif fault in _MODES:
            order(mode=_MODES[fault] if switch else "kIdle")
        elif fault in actions:
            return actions[fault]() or {}
        else:
            expected = ", ".join(sorted([*actions, *_MODES, *_LINK]))
            raise ConfigError(f"fault is {fault!r}, expected one of {expected}")
        return {}

    def _mend(self, lift_m: float) -> None:
        """Does what a person at the arm does: clears its stop, and leads it straight up, which takes a while."""
        self._controller.ask(mode="kIdle", lift_m=lift_m)
        self._closing.wait(lift_m / _LED_M_S)

    def _spoil_hand(self, what: str) -> None:
        if what and what not in _HAND:
            raise ConfigError(f"what is {what!r}, expected one of {', '.join(_HAND)}")
        self._controller.ask(hand=what)

    def _run(self) -> None:
        with contextlib.suppress(RobotError):  # ``check`` says so
            while not self._closing.wait(_PERIOD_S):
                self._follow(self._plant.state())

    def _follow(self, state: PlantState) -> None:
        """Tells the controller what hand and fingers feel, and leads them to where it has them."""
        felt = {"force": [*state.wrench], "width_m": min(state.width_m, _WIDEST_M), "moving": state.gripper_moving}
        told = self._controller.ask(**felt)
        count, width_m, speed_m_s, force_n = told["hand_told"]
        if count != self._gripped:
            self._gripped = count
            self._plant.grip(width_m, speed_m_s, force_n)
        target = self._tool(told)
        gap = np.abs(target.array() - self._sent.array())
        if state.blocked:
            self._plant.stop(_FOLLOW_M_S2)
        elif (gap < _STANDS).all():
            return  # told again, it would count as moving
        with contextlib.suppress(RobotError):  # where the plant's own arm does not reach
            self._plant.servo_to(target, _FOLLOW_M_S, _FOLLOW_M_S2, _FOLLOW_RAD_S)
            self._sent = target

    def _tool(self, told: dict[str, Any]) -> ToolPose:
        """Returns where the arm has the tool; one that is not vertical counts as such."""
        yaw_rad = math.atan2(told["opening_axis"][1], told["opening_axis"][0])
        self._yaw_rad += math.remainder(yaw_rad - self._yaw_rad, 2 * math.pi)
        x_m, y_m, z_m = told["position_m"]
        return ToolPose(x_m, y_m, z_m, self._yaw_rad)
