"""A cell file for tests, and an arm that reports whatever a test wants."""

import dataclasses
import math

from robot_bridge.cell_file import parse_cell_file
from robot_bridge.contracts import ArmMode, ArmState, MotionCommand, Reaction
from robot_bridge.displacement import to_pose
from robot_bridge.robot import ToolPose
from robot_bridge.safety.facts import Heartbeat, Phase
from robot_bridge.safety.monitor import CellSafetyMonitor

TEXT = """
schema = 1
cell = "lab-a-ur5e"
[arm]
driver = "ur"
host = "192.168.1.10"
[gripper]
driver = "robotiq-ur-socket"
[camera.main]
driver = "uvc"
device = "/dev/v4l/by-id/camera"
[bin]
floor_z_m = 0.012
inner_min_m = [0.42, -0.18]
inner_max_m = [0.72, 0.18]
rim_z_m = 0.11
"""
HERE = ToolPose(0.57, 0.0, 0.2, 0.0)
STILL = (0.0,) * 6


def cell(text="", **parts):
    """Returns the cell above with more lines of text, and with parts replaced."""
    return dataclasses.replace(parse_cell_file(TEXT + text), **parts)


def command(x_m=0.57, y_m=0.0, z_m=0.2, yaw_rad=0.0, speed_m_s=0.2, accel_m_s2=0.5, yaw_rate_rad_s=0.5):
    return MotionCommand(to_pose(ToolPose(x_m, y_m, z_m, yaw_rad)), speed_m_s, accel_m_s2, yaw_rate_rad_s)


class Bench:
    """A monitor, a clock, and an arm that stands where it is put; by default all is well and an episode runs."""

    def __init__(self, config=None, *, phase=Phase.EPISODE, episodes_done=20, **options):
        self.now_ns = 10**12
        self.tool = HERE
        self.monitor = CellSafetyMonitor(
            config or cell(), episodes_done=episodes_done, wall_time=lambda: 5.0, **options
        )
        self.step()
        if phase is not Phase.IDLE:
            assert self.monitor.enter(phase, self.now_ns).reaction is Reaction.ALLOW

    def state(self, **changes):
        state = ArmState(self.now_ns, self.now_ns * 1e-9, to_pose(self.tool), STILL, STILL, (), ArmMode.READY, codes={})
        return dataclasses.replace(state, **changes)

    def wait(self, seconds, *, alive=(Heartbeat.COLLECTOR, Heartbeat.POLICY)):
        self.now_ns += round(seconds * 1e9)
        for source in alive:
            self.monitor.beat(source, self.now_ns)

    def step(self, seconds=0.008, **changes):
        """Lets time pass, and the monitor see a new report."""
        self.wait(seconds)
        return self.monitor.observe(self.state(**changes), self.now_ns)

    def send(self, wanted=None, **changes):
        self.wait(0.008)
        return self.monitor.filter(wanted or command(), self.state(**changes), self.now_ns)

    def force(self, newtons):
        return self.step(wrench=(0.0, 0.0, newtons, 0.0, 0.0, 0.0))

    def put(self, x_m=0.57, y_m=0.0, z_m=0.2, yaw_rad=0.0):
        """Puts the arm somewhere, in a time that explains it."""
        self.tool = ToolPose(x_m, y_m, z_m, yaw_rad)
        return self.step(3.0)


def yaw_of(pose):
    x, y, _, _ = pose.quaternion_xyzw
    return 2 * math.atan2(y, x)
