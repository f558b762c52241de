"""franky-sim with faults, run by an interpreter that has it: ``python franka_sim.py ADDRESS``. Imports nothing of ours.

Prints a line when it serves. Then JSON lines on standard input, each answered by one with the true pose and joints:
``{"mode": "kReflex"}`` (or kUserStopped, kIdle), ``{"force": [six numbers]}``, ``{}``.
"""

import itertools
import json
import queue
import sys
import threading

from franky_sim import SimulationServer
from franky_sim.franka_robot_protocol import (
    AutomaticErrorRecoveryCommand,
    AutomaticErrorRecoveryStatus,
    MoveStatus,
    RobotCommand,
    RobotMode,
)
from franky_sim.franka_robot_server import FrankaRobotServer
from franky_sim.franka_server import BaseCommand
from franky_sim.mujoco_simulator import MujocoSimulator

FORCED = {"mode": RobotMode.kIdle, "force": (0.0,) * 6}
plain_state = FrankaRobotServer.robot_state


def faulty_state(server):
    state = plain_state.fget(server).replace(O_F_ext_hat_K=tuple(FORCED["force"]))
    return state if FORCED["mode"] is RobotMode.kIdle else state.replace(robot_mode=FORCED["mode"])


def recover(command, server):
    if FORCED["mode"] is RobotMode.kUserStopped:
        command.reply(AutomaticErrorRecoveryStatus.kCommandRejectedDueToActivatedSafetyFunctions)
        return
    FORCED["mode"] = RobotMode.kIdle
    command.reply(AutomaticErrorRecoveryStatus.kSuccess)


def abort(server, status):
    moving = server.current_motion_id
    server.stop_motion(send_preemption_signal=False)
    if moving:
        BaseCommand.send_response(server._tcp_socket, RobotCommand.kMove, moving, status)
        server.reset_current_motion_id()


def obey(server, order, time_s):
    if "force" in order:
        FORCED["force"] = order["force"]
    if "mode" in order:
        FORCED["mode"] = RobotMode[order["mode"]]
        if FORCED["mode"] is RobotMode.kReflex:
            abort(server, MoveStatus.kReflexAborted)
        elif FORCED["mode"] is RobotMode.kUserStopped:
            abort(server, MoveStatus.kPreemptedDueToActivatedSafetyFunctions)
    state = server.robot.state
    return {
        "time_s": time_s,
        "position_m": list(state.O_T_EE[12:15]),
        "joints_rad": list(state.q),
        "joint_speeds_rad_s": list(state.dq),
        "width_m": server.robot.hand_width,
    }


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    FrankaRobotServer.robot_state = property(faulty_state)
    AutomaticErrorRecoveryCommand.handle = recover
    lines = queue.Queue()
    with MujocoSimulator(enable_visualization=False) as sim:
        sim.add_robot()
        with SimulationServer(sim, hostname_candidates=[sys.argv[1]]) as server:
            threading.Thread(target=lambda: [lines.put(line) for line in sys.stdin], daemon=True).start()
            say("serving")
            for tick in itertools.count():
                server.run_once()
                while not lines.empty():
                    say(json.dumps(obey(server.robot_servers[0], json.loads(lines.get()), tick * 1e-3)))
