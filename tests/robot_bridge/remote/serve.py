"""A server process for tests: prints its port, serves a ``PointArm`` until SIGTERM, prints where it stands."""

import json
import sys

from qtopt.config import from_plain
from robot_bridge.remote import ArmServer, ServerOptions
from tests.robot_bridge.remote.point_arm import PointArm, PointGripper

if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    arm, gripper = PointArm(), PointGripper(0.0 if settings.pop("free_air", False) else 0.03)
    if settings.pop("blind", False):
        gripper.capabilities = frozenset()
    with ArmServer(arm, gripper, from_plain(ServerOptions, settings)) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        server.run()
    sys.stdout.write(json.dumps({"mode": arm.state().mode, "position_m": arm.state().pose.position_m}) + "\n")
