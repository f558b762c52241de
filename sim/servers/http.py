"""A simulated arm behind the remote-arm protocol, with what can go wrong with such an arm.

The server is the production one, ``robot_bridge.remote.ArmServer``; the arm behind it is a plant whose reports can be
spoiled. The fault port speaks as that of the simulated UR controller does.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qtopt.errors import ConfigError, RobotError
from robot_bridge.contracts import ArmMode, ArmState, GripperState, MotionOutcome, MotionResult, ObjectSensed, Pose
from robot_bridge.remote import ArmServer, ServerOptions
from sim.driver import SimArm, SimArmOptions
from sim.driver_gripper import SimGripper, SimGripperOptions
from sim.plant import Plant
from sim.servers.loopback import require_loopback
from sim.servers.truth import plant_trace, plant_truth
from sim.servers.ur_lines import TextServer, faults

_STOP_DECEL_M_S2: Final = 8.0
_STOPS: Final = {
    "protective_stop": ArmMode.PROTECTIVE_STOP,
    "emergency_stop": ArmMode.EMERGENCY_STOP,
    "safeguard": ArmMode.SAFEGUARD_STOP,
}
_LIES: Final = {"flag 2": ObjectSensed.YES, "flag 3": ObjectSensed.NO}
"""As a Robotiq's flag has it."""


class SpoiltArm(SimArm):
    """An arm whose reports and modes a fault port rules.

    Attributes:
        silent: it repeats its last report, which grows old.
        frozen: its clock stands still.
        not_a_number: its poses are none.
        jump_m: its poses are shifted by this.
        units_in_m: its lengths are told in so many units to the metre.
        slider: the operator's speed slider, 0 to 1.
        stopped: the mode that a stop left it in; None for none.
        unlock_refused: its protective stop may not be cleared.
        unlock_lies: clearing that is answered as if it had been done.
    """

    def __init__(self, plant: Plant) -> None:
        super().__init__(SimArmOptions(), plant)
        self.silent = self.frozen = self.not_a_number = self.unlock_refused = self.unlock_lies = False
        self.jump_m, self.slider, self.units_in_m = (0.0, 0.0, 0.0), 1.0, 1.0
        self.stopped: ArmMode | None = None
        self._last: ArmState | None = None

    def state(self) -> ArmState:
        """Returns a report, as spoilt as it is told to be."""
        if self.silent and self._last is not None:
            return self._last
        state = super().state()
        if self.frozen and self._last is not None:
            state = dataclasses.replace(state, t_controller_s=self._last.t_controller_s)
        x, y, z = (math.nan,) * 3 if self.not_a_number else state.pose.position_m
        a, b, c = self.jump_m
        units = self.units_in_m
        pose = Pose((units * (x + a), units * (y + b), units * (z + c)), state.pose.quaternion_xyzw)
        mode = self.stopped or state.mode
        self._last = dataclasses.replace(state, pose=pose, mode=mode, speed_scale=self.slider)
        return self._last

    def move_to(self, target: Pose, speed_m_s: float, accel_m_s2: float, deadline_s: float) -> MotionResult:
        """Moves where nothing has stopped it."""
        if self._why():
            return MotionResult(MotionOutcome.REJECTED, self._why())
        result = super().move_to(target, speed_m_s * self.slider, accel_m_s2, deadline_s)
        return MotionResult(MotionOutcome.FAULT, self._why(), result.pose) if self._why() else result

    def recover(self) -> None:
        """Clears a protective stop, and no other; raises RobotError where that is refused."""
        if self.stopped is ArmMode.PROTECTIVE_STOP and not self.unlock_lies:
            if self.unlock_refused:
                raise RobotError("the safety controller refuses to clear its protective stop")
            self.stopped = None

    def _why(self) -> str:
        return "" if self.stopped is None else f"the arm is in {self.stopped}"

    def go_into(self, mode: ArmMode | None) -> None:
        """Stops, as the arm's own safety controller does; None: a person has cleared it."""
        self.stopped = mode
        if mode is not None:
            self.plant.stop(_STOP_DECEL_M_S2)


class SpoiltGripper(SimGripper):
    """A gripper that fails in the way that ``fault`` names; empty for none.

    ``silent``, ``jammed``; ``flag 2``: it feels an object whatever is true; ``flag 3``: it feels none.
    """

    fault = ""

    def state(self) -> GripperState:
        """Returns the newest report; raises RobotError where it is silent."""
        if self.fault == "silent":
            raise RobotError("the gripper does not answer")
        state = super().state()
        if state.object_sensed is not ObjectSensed.UNKNOWN and self.fault in _LIES:
            return dataclasses.replace(state, object_sensed=_LIES[self.fault])
        return dataclasses.replace(state, fault="the fingers are jammed" if self.fault == "jammed" else "")

    def move(self, width_m: float, speed_m_s: float, force_n: float, deadline_s: float) -> GripperState:
        """Moves the fingers, but jammed ones."""
        return self.state() if self.fault == "jammed" else super().move(width_m, speed_m_s, force_n, deadline_s)


class HttpArmCell:
    """The server, its fault port and the arm behind; may be used in a ``with`` statement.

    Args:
        plant: running.
        host: a loopback address.
        token_file: holds the bearer token.
        spoil_camera: makes the camera fail in the way that a word names.

    Attributes:
        port: of the arm's server.
        fault_port: of the faults.
    """

    def __init__(self, plant: Plant, host: str, token_file: Path, spoil_camera: Callable[[str], None]) -> None:
        require_loopback(host)
        self._plant, self._spoil_camera = plant, spoil_camera
        self._arm = SpoiltArm(plant)
        self._arm.connect(5.0)
        self._gripper = SpoiltGripper(SimGripperOptions(), self._arm)
        self._gripper.connect(5.0)
        self._server = ArmServer(self._arm, self._gripper, ServerOptions(host=host, port=0, token_file=token_file))
        self._faults = TextServer((host, 0), faults(self.inject))
        self.port: int = self._server.port
        self.fault_port: int = self._faults.server_address[1]

    def __enter__(self) -> "HttpArmCell":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the arm and frees the ports."""
        self._faults.drop_connections()
        self._faults.shutdown()
        self._faults.server_close()
        self._server.close()

    def inject(self, request: dict[str, Any]) -> dict[str, Any]:
        """Makes something go wrong, or right again; see docs/drivers-http.md. Raises ConfigError for no such fault."""
        fault, switch = str(request.get("fault")), bool(request.get("on", True))
        arm = self._arm
        actions: dict[str, Callable[[], dict[str, Any] | None]] = {
            "truth": lambda: plant_truth(self._plant),
            "trace": lambda: plant_trace(self._plant, float(request["since_s"])),
            "silent": lambda: setattr(arm, "silent", switch),
            "frozen_clock": lambda: setattr(arm, "frozen", switch),
            "nan": lambda: setattr(arm, "not_a_number", switch),
            "unlock_refused": lambda: setattr(arm, "unlock_refused", switch),
            "unlock_lies": lambda: setattr(arm, "unlock_lies", switch),
            "wrong_units": lambda: setattr(arm, "units_in_m", 1000.0 if switch else 1.0),
            "pose_jump": lambda: setattr(arm, "jump_m", (0.0, 0.0, 0.08) if switch else (0.0, 0.0, 0.0)),
            "speed_slider": lambda: setattr(arm, "slider", float(request["fraction"])),
            "push": lambda: self._plant.push(request["force_n"], float(request.get("grows_s", 0.0))),
            "slip": self._plant.slip,
            "person": lambda: arm.go_into(None),
            "gripper": lambda: setattr(self._gripper, "fault", str(request["what"]) if switch else ""),
            "camera": lambda: self._spoil_camera(str(request["what"]) if switch else "none"),
            "refill": lambda: self._plant.refill(request.get("seed")),
        }
        if fault in _STOPS:
            arm.go_into(_STOPS[fault] if switch else None)
            return {}
        if fault not in actions:
            raise ConfigError(f"fault is {fault!r}, expected one of {', '.join(sorted([*actions, *_STOPS]))}")
        return actions[fault]() or {}
