"""A cell without physics: the hand goes where it is told, and a grasp holds where the test says so."""

import math

import numpy as np

from qtopt.errors import RobotError
from robot_bridge import CellConfig, GraspEnv, RobotState, ToolPose
from robot_bridge.robot import StepHeld


class FakeCell:
    """Robot, camera, detector and bin in one; ``grip_finds`` says how wide the fingers stay when they close.

    ``verdicts`` are what the detector will say, in turn; ``blocked_z_m`` stops every descent; ``fault`` makes moves
    fail; ``held_at`` holds the next one at a share of its way.
    """

    def __init__(self, seed=0):
        self.tool = ToolPose(0.6, 0.0, 0.3, 0.0)
        self.closed, self.width_m = False, 0.1
        self.grip_finds, self.verdict, self.is_lifted, self.is_doubtful = 0.0, False, False, False
        self.blocked_z_m, self.fault, self.held_at = -1.0, "", None
        self.rng = np.random.default_rng(seed)
        self.log, self.outcomes, self.closings = [], [], 0

    def state(self):
        return RobotState(self.tool, self.closed, self.width_m, 0.1 - self.width_m if self.closed else math.inf)

    def move(self, target):
        if self.fault:
            raise RobotError(self.fault)
        if self.held_at is not None:
            here, there = self.tool.array(), target.array()
            self.tool, self.held_at = ToolPose(*(here + self.held_at * (there - here)).tolist()), None
            raise StepHeld("an operator's slider")
        z_m = max(target.z_m, self.blocked_z_m)
        self.tool = ToolPose(target.x_m, target.y_m, z_m, target.yaw_rad)
        self.log.append("move")
        return self.tool

    def grip(self, *, close):
        self.closed, self.width_m = close, self.grip_finds if close else 0.1
        self.log.append("close" if close else "open")

    def home(self, start):
        self.closed, self.width_m, self.tool = False, 0.1, start
        return start

    def stop(self):
        self.log.append("stop")

    def close(self):
        self.closings += 1

    def capture(self):
        return self.rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)

    def lifted(self):
        return self.is_lifted

    def doubts(self):
        self.log.append("doubts")
        return self.is_doubtful

    def judge(self):
        self.log.append("judge")
        return self.verdict

    def prepare(self, seed):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        return {"objects": [1, 2]}

    def finish(self, outcome):
        self.outcomes.append(outcome)
        return {"outcomes": len(self.outcomes)}

    def environment(self, config=None, seed=0):
        return GraspEnv(self, self, self, self, config or CellConfig(), seed)
