"""A process for tests: ``so101_drive PORT CALIBRATION`` moves an SO-101 slowly until it is killed."""

import sys
from pathlib import Path

from robot_bridge.contracts import Pose
from robot_bridge.drivers.so101 import So101Arm
from robot_bridge.drivers.so101_options import So101Options

if __name__ == "__main__":
    arm = So101Arm(So101Options(sys.argv[1], Path(sys.argv[2])))
    arm.connect(10.0)
    x, y, z = arm.state().pose.position_m
    sys.stdout.write("moving\n")
    sys.stdout.flush()
    arm.move_to(Pose((x, y + 0.12, z), (1.0, 0.0, 0.0, 0.0)), 0.01, 0.5, 60.0)
