"""What a Universal Robots controller is: modes and stops, registers, a program, and the arm behind it."""

import contextlib
import itertools
import math
import threading
import time

import numpy as np

from qtopt.errors import RobotError
from robot_bridge.contracts import Pose
from robot_bridge.displacement import tilt_rad, to_pose, to_tool
from robot_bridge.drivers.rotvec import Six, from_rotvec_pose, to_rotvec_pose
from robot_bridge.robot import ToolPose
from sim.camera import quaternion
from sim.plant import Plant, PlantState
from sim.servers.ur_arm import Matrix, flange_pose, nearest_solution
from sim.servers.ur_fields import INPUTS, REGISTERS
from sim.servers.ur_program import Program

TOOL_LENGTH_M = 0.174
"""From the flange to the finger tips, and the tool centre point that the controller is set up with."""
UNLOCK_AFTER_S = 5.0
PROGRAM_START_S = 0.1
_RUNNING, _IDLE, _POWER_OFF = 7, 5, 3
NORMAL, PROTECTIVE, SAFEGUARD, EMERGENCY = 1, 3, 5, 7
_STATUS_BITS = {NORMAL: 1, PROTECTIVE: (1 << 2) | (1 << 10), SAFEGUARD: (1 << 4) | (1 << 10)}
_STATUS_BITS[EMERGENCY] = (1 << 6) | (1 << 7) | (1 << 10)
_STOP_DECEL_M_S2 = 8.0
_ELBOW_UP = np.array([0.0, -1.5, 1.8, -1.9, -1.57, 0.0])
_MOST_TILT_RAD = 0.05


class Controller:
    """A simulated controller; a ``sim.servers.ur_program.Machine``. Methods may be called from any thread.

    Args:
        plant: the arm; started and closed by who made it.
    """

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.lock = threading.RLock()
        self.robot_mode, self.safety_mode = _RUNNING, NORMAL
        self.remote_control = True
        self.slider = 1.0
        self.hottest_joint_c = 32.5
        self.payload: tuple[float, tuple[float, ...]] = (1.0, (0.0, 0.0, 0.05))
        self.tcp: tuple[float, ...] = (0.0, 0.0, TOOL_LENGTH_M, 0.0, 0.0, 0.0)
        self.registers: dict[str, object] = {}
        self.frozen_time_s: float | None = None
        self.pose_jump_m = (0.0, 0.0, 0.0)
        self.not_a_number = False
        self.units_in_m = 1.0
        """Reported lengths are told in so many units to the metre."""
        self.safety_told: tuple[int, int] | None = None
        """Safety mode and status bits that are told in place of the true ones."""
        self.unlock_refused = self.unlock_lies = False
        self.log: list[str] = []
        self._program: Program | None = None
        self._program_from = 0.0
        self._fed_at: dict[str, float] = {}
        self._protective_since = 0.0
        self._force_zero = np.zeros(6)
        self._joints = _ELBOW_UP.copy()
        self._joint_rates = np.zeros(6)
        self._order: tuple[ToolPose, float, float, float] | None = None
        self._started = self._last_cycle = time.monotonic()
        self._outputs: dict[str, object] = {}
        self.cycle()

    def cycle(self) -> None:
        """Runs through one cycle: program, watchdog, what stands in the way, and what is reported next."""
        with self.lock:
            now = time.monotonic()
            state = self.plant.state()
            if state.blocked and self.safety_mode == NORMAL and self._order is not None:
                self.protective_stop("position deviates from path: something stands in the way")
            if self._program is not None and now >= self._program_from:
                self._check_watchdog(self._program, now)
                self._program.step()
                if self._program.ended:
                    self.end_program(self._program.ended)
            self._report(state, now)

    def outputs(self) -> dict[str, object]:
        """Returns the variables of the newest cycle; not to be changed."""
        return self._outputs

    def take(self, values: dict[str, object]) -> None:
        """Takes what a client sent."""
        now = time.monotonic()
        with self.lock:
            if values.get("speed_slider_mask"):
                self.set_slider(float(values["speed_slider_fraction"]))  # type: ignore[arg-type]
            for name, value in values.items():
                self.registers[name] = value
                self._fed_at[name] = now

    def upload(self, text: str) -> None:
        """Starts a program, in place of what runs, as far as remote control and the safety state allow."""
        with self.lock:
            if not self.remote_control or self.robot_mode != _RUNNING or self.safety_mode != NORMAL:
                self.log.append("a program was refused")
                return
            self.end_program("another program came")
            if "rtde_control" in text:
                offsets = _offset(text, "float register offset"), _offset(text, "int register offset")
                for name in INPUTS:
                    if name.startswith("input_int_register"):
                        self.registers[name] = 0
                self._program = Program(self, *offsets)
                self._program_from = time.monotonic() + PROGRAM_START_S

    @property
    def program_running(self) -> bool:
        """Whether a program is under way."""
        return self._program is not None and time.monotonic() >= self._program_from

    def end_program(self, reason: str) -> None:
        """Ends the program, if one runs; the arm stands."""
        with self.lock:
            if self._program is not None:
                self.log.append(f"program ended: {reason}")
                self._program = None
            self.brake(_STOP_DECEL_M_S2 if self.safety_mode != NORMAL else 4.0)

    def protective_stop(self, reason: str) -> None:
        """Stops as the controller does when it fears to do harm."""
        with self.lock:
            if self.safety_mode == NORMAL:
                self.safety_mode, self._protective_since = PROTECTIVE, time.monotonic()
                self.end_program(f"protective stop: {reason}")

    def unlock(self) -> str:
        """Ends a protective stop, not before five seconds have passed; returns the dashboard's answer."""
        with self.lock:
            if self.safety_mode != PROTECTIVE:
                return "Protective stop releasing"
            if self.unlock_refused or time.monotonic() - self._protective_since < UNLOCK_AFTER_S:
                return (
                    "Cannot unlock protective stop until 5s after occurrence. Always inspect cause of protective stop "
                    "before unlocking"
                )
            if not self.unlock_lies:
                self.safety_mode = NORMAL
            return "Protective stop releasing"

    def emergency_stop(self, *, pressed: bool) -> None:
        """Presses or releases the emergency stop button; afterwards the arm is without power."""
        with self.lock:
            if pressed:
                self.safety_mode, self.robot_mode = EMERGENCY, _POWER_OFF
                self.end_program("emergency stop")
            elif self.safety_mode == EMERGENCY:
                self.safety_mode = NORMAL

    def safeguard(self, *, opened: bool) -> None:
        """Opens or closes the safeguard; closing it starts nothing."""
        with self.lock:
            if opened and self.safety_mode == NORMAL:
                self.safety_mode = SAFEGUARD
                self.end_program("safeguard stop")
            elif not opened and self.safety_mode == SAFEGUARD:
                self.safety_mode = NORMAL

    def person_clears(self) -> None:
        """Does what a person at the pendant does after a stop: releases, closes, switches on. Nothing moves by that."""
        with self.lock:
            self.safety_mode, self.robot_mode, self.remote_control = NORMAL, _RUNNING, True

    def power(self, *, on: bool) -> None:
        """Switches the arm on, brakes held, or off."""
        with self.lock:
            if not on:
                self.robot_mode = _POWER_OFF
                self.end_program("power off")
            elif self.safety_mode != EMERGENCY and self.robot_mode == _POWER_OFF:
                self.robot_mode = _IDLE

    def release_brakes(self) -> None:
        """Makes the arm ready."""
        with self.lock:
            if self.safety_mode == NORMAL:
                self.robot_mode = _RUNNING

    def set_slider(self, fraction: float) -> None:
        """Sets the speed slider, also for the motion that is under way."""
        with self.lock:
            self.slider = min(max(fraction, 0.0), 1.0)
            if self._order is not None:
                if self.slider > 0:
                    self.go(*self._order, stream=False)
                else:
                    self.plant.stop(_STOP_DECEL_M_S2)

    def number(self, register: int) -> int:
        """Returns an integer input register."""
        return int(self.registers.get(f"input_int_register_{register}", 0))  # type: ignore[call-overload,no-any-return]

    def values(self, first: int, count: int) -> tuple[float, ...]:
        """Returns double input registers."""
        return tuple(
            float(self.registers.get(f"input_double_register_{n}", 0.0))  # type: ignore[arg-type]
            for n in range(first, first + count)
        )

    def answer(self, register: int, value: int) -> None:
        """Writes an integer output register."""
        self.registers[f"output_int_register_{register}"] = value

    def tool_now(self) -> ToolPose:
        """Returns where the finger tips are, by the joints."""
        return self.plant.state().told

    def tool_of_pose(self, values: tuple[float, ...]) -> ToolPose:
        """Returns where the finger tips are when the set tool centre point is at a rotation-vector pose.

        Raises:
            RobotError: the hand would not point straight down.
        """
        return self._tool(_matrix(values) @ np.linalg.inv(_matrix(self.tcp)))

    def tool_of_joints(self, values: tuple[float, ...]) -> tuple[ToolPose, float]:
        """Returns where the finger tips are at six joint angles, and the largest change of an angle on the way [rad].

        Raises:
            RobotError: the hand would not point straight down.
        """
        joints = np.array(values)
        return self._tool(flange_pose(joints)), float(np.abs(joints - self._joints).max())

    def go(self, target: ToolPose, speed: float, accel: float, turn: float, *, stream: bool) -> None:
        """Starts a motion, slower where the slider says so. Raises RobotError where the arm cannot reach."""
        if nearest_solution(self._flange(target), self._joints) is None:
            raise RobotError(f"inverse kinematics: no solution for {target}")
        self._order = (target, speed, accel, turn)
        scale = max(self.slider, 1e-3)
        motion = self.plant.servo_to if stream else self.plant.move_to
        motion(target, speed * scale, accel, turn * scale)

    def brake(self, decel: float) -> None:
        """Stands still."""
        self._order = None
        self.plant.stop(max(decel, 0.1))

    def busy(self) -> bool:
        """Whether a motion is under way."""
        return self.plant.state().under_way

    def zero_force(self) -> None:
        """Takes the present force as zero."""
        self._force_zero = np.array(self.plant.state().wrench)

    def set_payload(self, mass_kg: float, centre_m: tuple[float, ...]) -> None:
        """Sets what the flange carries."""
        self.payload = mass_kg, centre_m

    def set_tcp(self, values: tuple[float, ...]) -> None:
        """Sets the tool centre point, seen from the flange."""
        self.tcp = values

    def _check_watchdog(self, program: Program, now: float) -> None:
        if program.watchdog_hz > 0:
            age = now - self._fed_at.get(program.watched_register, now)
            if age > 1.0 / program.watchdog_hz:
                program.ended = f"watchdog: no input for {age:.2f} s, expected {program.watchdog_hz:.0f} Hz"

    def _flange(self, tool: ToolPose) -> Matrix:
        pose = _matrix(to_rotvec_pose(to_pose(tool)))
        pose[2, 3] += TOOL_LENGTH_M
        return pose

    def _tool(self, flange: Matrix) -> ToolPose:
        tips = flange.copy()
        tips[:3, 3] += flange[:3, 2] * TOOL_LENGTH_M
        pose = from_rotvec_pose(_values(tips))
        if tilt_rad(pose) > _MOST_TILT_RAD:
            raise RobotError(
                f"the tool would lean by {math.degrees(tilt_rad(pose)):.1f} degrees; the simulated hand only points "
                "straight down"
            )
        return to_tool(pose, self.tool_now().yaw_rad)

    def _follow_joints(self, flange: Matrix, now: float) -> None:
        joints = nearest_solution(flange, self._joints)
        if joints is not None:
            self._joint_rates = (joints - self._joints) / max(now - self._last_cycle, 1e-4)
            self._joints = joints
        self._last_cycle = now

    def _report(self, state: PlantState, now: float) -> None:
        flange = self._flange(state.told)
        self._follow_joints(flange, now)
        pose = _values(flange @ _matrix(self.tcp))
        speed = state.told_twist
        force = tuple((np.array(state.wrench) - self._force_zero).tolist())
        jumped = (a + b for a, b in zip(pose[:3], self.pose_jump_m, strict=True))
        shown = (*(self.units_in_m * each for each in jumped), *pose[3:])
        if self.not_a_number:
            shown = (math.nan,) * 6
        powered, running = self.robot_mode in (_RUNNING, _IDLE), self.program_running
        safety_mode, safety_bits = self.safety_told or (self.safety_mode, _STATUS_BITS[self.safety_mode])
        still = (0.0,) * 6
        outputs: dict[str, object] = {
            f"output_{kind}_register_{n}": 0 for kind in ("int", "double") for n in range(REGISTERS)
        }
        outputs |= self.registers
        outputs |= {
            "timestamp": now - self._started if self.frozen_time_s is None else self.frozen_time_s,
            "actual_q": tuple(self._joints.tolist()),
            "target_q": tuple(self._joints.tolist()),
            "actual_qd": tuple(self._joint_rates.tolist()) if state.moving else still,
            "target_qd": tuple(self._joint_rates.tolist()) if state.under_way else still,
            "actual_TCP_pose": shown,
            "target_TCP_pose": pose,
            "actual_TCP_speed": speed,
            "target_TCP_speed": speed,
            "actual_TCP_force": force,
            "ft_raw_wrench": state.wrench,
            "tcp_force_scalar": float(np.linalg.norm(force[:3])),
            "joint_temperatures": (31.0, 32.0, self.hottest_joint_c, 30.0, 29.0, 28.5),
            "joint_mode": ((253,) if powered else (239,)) * 6,
            "robot_mode": self.robot_mode,
            "safety_mode": safety_mode,
            "safety_status": safety_mode,
            "safety_status_bits": safety_bits,
            "robot_status_bits": int(powered) | (int(running) << 1),
            "runtime_state": 2 if running else 1,
            "speed_scaling": self.slider if running else 0.0,
            "target_speed_fraction": self.slider,
            "payload": self.payload[0],
            "payload_cog": self.payload[1],
            "tcp_offset": self.tcp,
            "actual_main_voltage": 48.0,
            "actual_robot_voltage": 48.0 if powered else 0.0,
            "actual_tool_accelerometer": (0.0, 0.0, -9.81),
        }
        self._outputs = outputs


def _offset(text: str, comment: str) -> int:
    """Returns the number at the start of the line below a comment: where the client has put its registers."""
    lines = text.splitlines()
    for line, below in itertools.pairwise(lines):
        if comment in line:
            with contextlib.suppress(ValueError, IndexError):
                return int(below.split()[0])
    return 0


def _matrix(values: tuple[float, ...]) -> Matrix:
    a, b, c, d, e, f = values
    pose = from_rotvec_pose((a, b, c, d, e, f))
    x, y, z, w = pose.quaternion_xyzw
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = pose.position_m
    return matrix


def _values(matrix: Matrix) -> Six:
    """Returns the rotation-vector pose of (4, 4)."""
    x, y, z, w = quaternion(matrix)
    px, py, pz = matrix[:3, 3].tolist()
    return to_rotvec_pose(Pose((px, py, pz), (x, y, z, w)))
