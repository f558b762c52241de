"""franky-sim with faults, run by an interpreter that has it: ``python franka_controller ADDRESS [seven joints]``.

Imports nothing of ours. Prints a line when it serves, and ends with its input. Until then each line of JSON is an
order, answered by one line that tells where arm and hand are. What an order may hold:

    mode       kIdle, kReflex, kUserStopped, kOther: the controller's mode; a motion under way is aborted
    force      six numbers: what presses on the tool, in its reports; more than the limit it was given is a reflex
    width_m    opening of the fingers in its reports; null: that of the fingers in MuJoCo
    moving     those fingers are under way, so no motion of the hand has ended
    spoil      some of silent, frozen_clock, duplicate_frames, nan, wrong_units, pose_jump
    recovery   refused: a reflex may not be left; lies: that is only said; or empty
    hand       silent, jammed, "flag 2" (it feels an object), "flag 3" (it feels none), or empty
    lift_m     a person leads the tool straight up
    drop_s     resets every connection, and listens for others after so long
"""

import itertools
import json
import queue
import signal
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pinocchio as pin
from franky_sim import SimulationServer, franka_robot_server, simulation_server
from franky_sim.franka_gripper_protocol import GripperCommandStatus
from franky_sim.franka_gripper_server import FrankaGripperServer
from franky_sim.franka_robot_protocol import (
    AutomaticErrorRecoveryCommand,
    AutomaticErrorRecoveryStatus,
    MoveStatus,
    RobotCommand,
    RobotMode,
    SetCollisionBehaviorCommand,
)
from franky_sim.franka_robot_server import FrankaRobotServer
from franky_sim.franka_server import BaseCommand, FrankaServer
from franky_sim.mujoco_simulator import MujocoSimulator

TICK_S = 1e-3
MOST_LATE_S = 0.05
JUMP_M = 0.08
LED_M_S = 0.05
STIFFNESS, DAMPING = 4.0, 0.8
"""Of franky-sim's own, with which joints follow by a tenth of a second, creep to rest for 0.4 s, and tremble there."""
MM_PER_M = 1000.0
ABORTED = {
    RobotMode.kReflex: MoveStatus.kReflexAborted,
    RobotMode.kUserStopped: MoveStatus.kPreemptedDueToActivatedSafetyFunctions,
    RobotMode.kOther: MoveStatus.kAborted,
}
REFUSED = {
    RobotMode.kUserStopped: AutomaticErrorRecoveryStatus.kCommandRejectedDueToActivatedSafetyFunctions,
    RobotMode.kOther: AutomaticErrorRecoveryStatus.kCommandNotPossibleRejected,
}


@dataclass
class Spoilt:
    """What is wrong now."""

    mode: Any = RobotMode.kIdle
    force: list[float] = field(default_factory=lambda: [0.0] * 6)
    limits_n: list[float] = field(default_factory=lambda: [float("inf")] * 6)
    width_m: float | None = None
    fingers_move: bool = False
    faults: frozenset[str] = frozenset()
    hand: str = ""
    recovery: str = ""
    away_until: float = 0.0


NOW = Spoilt()


class Controller(FrankaRobotServer):
    """The arm's server, whose reports and connections can be spoilt.

    Attributes:
        left_m: so far somebody still leads the tool up.
        led_to: where it is led to now: x, y, z [m], quaternion (x, y, z, w).
    """

    left_m = 0.0
    led_to: Any = None
    _FrankaServer__message_id: int  # the base's own

    def lead_up(self, way_m: float) -> None:
        """Has somebody lead the tool straight up, as a person does in guiding mode, who needs no client for it."""
        self.left_m, self.led_to = way_m, pin.SE3ToXYZQUAT(self.robot.kinematics(self.robot.inner_state.q))

    def process_commands(self) -> None:
        """Takes orders and connections, unless it is away; ends a motion that presses too hard, or must not be."""
        if time.monotonic() < NOW.away_until:
            self._post_process_commands()
            return
        if self._FrankaServer__server_socket is None:
            self._FrankaServer__hostname_candidates = [self.hostname]
            self.init()
        super().process_commands()
        if self.current_motion_id:
            pressed = any(abs(a) > b for a, b in zip(NOW.force, NOW.limits_n, strict=True))
            if NOW.mode is not RobotMode.kIdle or pressed:
                self.go_into(RobotMode.kReflex if NOW.mode is RobotMode.kIdle else NOW.mode)

    def send_state(self) -> None:
        """Reports, once every millisecond; the number of a report is the controller's clock."""
        copies = 0 if "silent" in NOW.faults else 2 if "duplicate_frames" in NOW.faults else 1
        number = self._FrankaServer__message_id
        for _ in range(copies):
            self._FrankaServer__message_id = number
            FrankaServer.send_state(self)
        self._FrankaServer__message_id = number + ("frozen_clock" not in NOW.faults)
        self.gripper_server.send_state()

    def go_into(self, mode: Any) -> None:
        """Enters a mode, and aborts what is under way."""
        NOW.mode = mode
        moving = self.current_motion_id
        if mode is RobotMode.kIdle or not moving:
            return
        self.stop_motion(send_preemption_signal=False)
        BaseCommand.send_response(self._tcp_socket, RobotCommand.kMove, moving, ABORTED[mode])
        self.reset_current_motion_id()

    def drop(self, away_s: float) -> None:
        """Resets its connections, the hand's too, and listens again after ``away_s``."""
        NOW.away_until = time.monotonic() + away_s
        for server in (self, self.gripper_server):
            if server._tcp_socket is not None:
                server._tcp_socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            server.reset_state()
        self.cleanup()

    def _post_process_commands(self) -> None:
        if self.left_m <= 0.0:
            super()._post_process_commands()
            return
        self.left_m -= LED_M_S * TICK_S
        self.led_to[2] += LED_M_S * TICK_S
        self.robot.cartesian_position_control(self.led_to, None)
        self._FrankaRobotServer__holding_q = tuple(self.robot.inner_state.q)

    def _get_state_bytes(self) -> Any:
        """Spoils what is told, and not what is: a motion begins where the arm is."""
        state = self.robot_state
        pose = list(state.O_T_EE)
        if "nan" in NOW.faults:
            pose[12:15] = [float("nan")] * 3
        if "wrong_units" in NOW.faults:
            pose[12:15] = [MM_PER_M * each for each in pose[12:15]]
        if "pose_jump" in NOW.faults:
            pose[14] += JUMP_M
        mode = state.robot_mode if NOW.mode is RobotMode.kIdle else NOW.mode
        return state.replace(O_T_EE=tuple(pose), O_F_ext_hat_K=tuple(NOW.force), robot_mode=mode).pack_state()


class Hand(FrankaGripperServer):
    """The hand's server, which can be silent or feel what is not there."""

    _is_grasping: bool  # the base's own

    def process_commands(self) -> None:
        """Takes orders, unless it is silent."""
        if NOW.hand != "silent":
            super().process_commands()

    def send_state(self) -> None:
        """Reports, unless it is silent."""
        if NOW.hand != "silent":
            super().send_state()

    def _get_state_bytes(self) -> Any:
        felt = self._is_grasping
        self._is_grasping = {"flag 2": True, "flag 3": False}.get(NOW.hand, felt)
        told = super()._get_state_bytes()
        self._is_grasping = felt
        return told

    def stop(self, command_id: int, tcp_socket: Any) -> None:
        """Stops, and says so to whoever waits for the end of a motion, who would wait for ever."""
        if self._pending_command_id is not None:
            pending = self._pending_command_type, self._pending_command_id, GripperCommandStatus.kAborted
            BaseCommand.send_response(tcp_socket, *pending, command_type_struct="H", status_type_struct="H")
        super().stop(command_id, tcp_socket)

    def _check_motion_state(self) -> None:
        if NOW.width_m is not None:  # whether those fingers rest is told, and not judged from how they tremble
            self._prev_width = self._robot.hand_width
            self._settling_steps *= not NOW.fingers_move
        super()._check_motion_state()


class Limits(SetCollisionBehaviorCommand):
    """From what force on it is a reflex."""

    def handle(self, server: Any) -> None:
        """Takes note of them."""
        NOW.limits_n = list(self.upper_force_thresholds_nominal)
        super().handle(server)


class Recovery(AutomaticErrorRecoveryCommand):
    """The way out of a reflex, and of nothing else."""

    def handle(self, server: Any) -> None:
        """Leaves a reflex; refuses while the user stop is pressed, somebody else has the arm, or as it is told to."""
        if NOW.mode in REFUSED or NOW.recovery == "refused":
            self.reply(REFUSED.get(NOW.mode, AutomaticErrorRecoveryStatus.kCommandNotPossibleRejected))
            return
        if NOW.recovery != "lies":
            NOW.mode = RobotMode.kIdle
        self.reply(AutomaticErrorRecoveryStatus.kSuccess)


class Fingers:
    """What the hand was told, and how far its fingers are apart: as told from outside, or as MuJoCo has them."""

    def __init__(self, robot: Any) -> None:
        self.told = [0, 0.0, 0.0, 0.0]
        self._go, self._width_m = robot.set_hand_goal, robot._get_hand_width
        robot.set_hand_goal, robot._get_hand_width = self.go, self.width_m

    def go(self, width_m: float, speed_m_s: float, force_n: float) -> None:
        """Turns to an opening; jammed fingers do not."""
        if NOW.hand != "jammed":
            self.told = [self.told[0] + 1, width_m, speed_m_s, force_n]
            self._go(width_m, speed_m_s, force_n)

    def width_m(self) -> float:
        """Returns the opening."""
        return float(self._width_m() if NOW.width_m is None else NOW.width_m)


def obey(server: Controller, fingers: Fingers, order: dict[str, Any], time_s: float) -> dict[str, Any]:
    """Does what an order says and returns the answer."""
    NOW.force = order.get("force", NOW.force)
    NOW.width_m = order.get("width_m", NOW.width_m)
    NOW.fingers_move = order.get("moving", NOW.fingers_move)
    NOW.faults = frozenset(order.get("spoil", NOW.faults))
    NOW.hand = order.get("hand", NOW.hand)
    NOW.recovery = order.get("recovery", NOW.recovery)
    if "mode" in order:
        server.go_into(RobotMode[order["mode"]])
    if "lift_m" in order:
        server.lead_up(order["lift_m"])
    if "drop_s" in order:
        server.drop(order["drop_s"])
    state = server.robot.state
    return {
        "time_s": time_s,
        "mode": NOW.mode.name,
        "position_m": list(state.O_T_EE[12:15]),
        "opening_axis": list(state.O_T_EE[4:7]),
        "joints_rad": list(state.q),
        "joint_speeds_rad_s": list(state.dq),
        "width_m": server.robot.hand_width,
        "hand_told": fingers.told,
    }


def main(address: str, joints_rad: list[float]) -> None:
    """Serves until standard input ends."""
    simulation_server.FrankaRobotServer = Controller
    franka_robot_server.FrankaGripperServer = Hand
    franka_robot_server.SetCollisionBehaviorCommand = Limits
    franka_robot_server.AutomaticErrorRecoveryCommand = Recovery
    lines: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its input
    with MujocoSimulator() as sim:
        robot = sim.add_robot(joints_rad) if joints_rad else sim.add_robot()
        robot.kp, robot.kv = STIFFNESS * robot.kp, DAMPING * robot.kv
        fingers = Fingers(robot)
        where = robot.kinematics
        robot.kinematics = lambda joints: where(joints).copy()  # or it is where the next joints asked for would have it
        ground = next(each for each in sim.worldbody if each.get("name") == "ground")
        ground.attrib |= {"contype": "0", "conaffinity": "0"}  # the finger tips of this model reach below the tool
        with SimulationServer(sim, hostname_candidates=[address]) as server:
            threading.Thread(target=listen, daemon=True).start()
            say("serving")
            due_s = time.monotonic()
            for tick in itertools.count():
                server.run_once(realtime=False)
                while not lines.empty():
                    line = lines.get()
                    if not line:
                        return
                    say(json.dumps(obey(server.robot_servers[0], fingers, json.loads(line), tick * TICK_S)))
                due_s = max(due_s + TICK_S, time.monotonic() - MOST_LATE_S)
                time.sleep(max(0.0, due_s - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], [float(each) for each in sys.argv[2:]])
