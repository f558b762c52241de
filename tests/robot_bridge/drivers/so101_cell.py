"""An SO-101 of six simulated servos in their own process, with its calibration file."""

import json
import math
import subprocess
import sys

from robot_bridge.drivers.so101_options import So101Options

HOME_RAD = (0.0, 1.2, -1.5, -math.pi / 2 + 0.3, 0.0)
"""The tool is vertical, in front of the arm."""

JAWS = {"servo": 6, "closed_steps": 1500, "open_steps": 2700, "open_width_m": 0.08}


def steps(angle_rad, direction=1):
    return 2048 + direction * round(angle_rad * 4096 / (2 * math.pi))


class Servos:
    """The bus process; ``ask`` gives it orders and returns where its servos are."""

    def __init__(self):
        command = [sys.executable, "-m", "sim.servers.feetech"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = self.process.stdout.readline().strip()

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def make_cell(servos, folder, joints_rad=HOME_RAD, jaw=2000):
    """Puts new servos on the bus; returns the options of an arm of them, whose elbow's servo turns the other way."""
    directions = (1, 1, -1, 1, 1)
    calibration = {
        name: {
            "servo": index + 1,
            "zero_steps": 2048,
            "direction": directions[index],
            "low_steps": 600,
            "high_steps": 3500,
        }
        for index, name in enumerate(("pan", "lift", "elbow", "flex", "roll"))
    }
    path = folder / "calibration.json"
    path.write_text(json.dumps({**calibration, "gripper": JAWS}))
    servos.ask(renew=[*(steps(at, way) for at, way in zip(joints_rad, directions, strict=True)), jaw])
    return So101Options(port=servos.port, calibration_file=path)
