"""A process for tests: ``ur_drive HOST WATCHDOG_HZ`` drives an arm as JSON lines tell it; see ``ur_server``."""

import json
import sys
import threading
import time

from robot_bridge.displacement import to_pose, to_tool
from robot_bridge.drivers.ur import DRIVER
from robot_bridge.robot import ToolPose

out = threading.Lock()


def say(tag, **values):
    with out:
        sys.__stdout__.write(json.dumps({"tag": tag, **values}) + "\n")
        sys.__stdout__.flush()


def tool(pose):
    here = to_tool(pose)
    return [here.x_m, here.y_m, here.z_m, here.yaw_rad]


def state(arm):
    report = arm.state()
    return {
        "mode": report.mode,
        "tool": tool(report.pose),
        "joints": report.joints_rad,
        "program": report.program_running,
        "scale": report.speed_scale,
    }


def command(arm, name, args):
    if name == "move":
        return arm.move_to(to_pose(ToolPose(*args[0])), *args[1:])
    if name == "servo":
        return arm.servo(to_pose(ToolPose(*args[0])), args[1])
    if name == "joints":
        return arm.move_joints(tuple(args[0]), *args[1:])
    return getattr(arm, name)(*args)


def obey(arm, tag, name, args):
    began = time.monotonic()
    try:
        if name == "state":
            say(tag, **state(arm))
            return
        result = command(arm, name, args)
        took_s = time.monotonic() - began
        if result is None:
            say(tag, took_s=took_s)
        else:
            say(tag, outcome=result.outcome, reason=result.reason, took_s=took_s)
    except Exception as error:
        say(tag, error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    arm = DRIVER.open(DRIVER.options(host=sys.argv[1], watchdog_hz=float(sys.argv[2])))
    for line in sys.stdin:
        tag, name, *args = json.loads(line)
        threading.Thread(target=obey, args=(arm, tag, name, args)).start()
