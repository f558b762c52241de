"""A server process for tests: prints its port, serves a ``PointArm`` until SIGTERM, prints where it stands."""

import json
import sys
from pathlib import Path

from qtopt.config import from_plain
from robot_bridge.remote import ArmServer, ServerOptions
from tests.robot_bridge.remote.point_arm import PointArm, PointGripper

if __name__ == "__main__":
    arm = PointArm()
    with ArmServer(arm, PointGripper(), from_plain(ServerOptions, json.loads(Path(sys.argv[1]).read_text()))) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        server.run()
    sys.stdout.write(json.dumps({"mode": arm.state().mode, "position_m": arm.state().pose.position_m}) + "\n")
