"""A process for tests: ``franka_drive ADDRESS`` moves a Franka arm slowly until it is killed."""

import sys

from robot_bridge.contracts import Pose
from robot_bridge.drivers.franka import FrankaArm
from robot_bridge.drivers.franka_options import FrankaOptions

if __name__ == "__main__":
    arm = FrankaArm(FrankaOptions(sys.argv[1], realtime=False))
    arm.connect(20.0)
    here = arm.state().pose
    x, y, z = here.position_m
    sys.stdout.write("moving\n")
    sys.stdout.flush()
    arm.move_to(Pose((x, y + 0.3, z), here.quaternion_xyzw), 0.03, 0.5, 100.0)
