"""A client process for tests: ``drive URL TOKEN_FILE`` says so and moves slowly, until it is killed."""

import sys
from pathlib import Path

from robot_bridge.contracts import Pose
from robot_bridge.drivers.http_arm import HttpArm
from robot_bridge.remote import LinkOptions
from tests.robot_bridge.remote.point_arm import DOWN

if __name__ == "__main__":
    arm = HttpArm(LinkOptions(sys.argv[1], Path(sys.argv[2]), link_timeout_s=5.0))
    arm.connect(10.0)
    sys.stdout.write("moving\n")
    sys.stdout.flush()
    arm.move_to(Pose((5.0, 0.0, 0.3), DOWN), 0.05, 0.5, 60.0)
