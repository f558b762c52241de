"""The simulated arm and the judge of its grasps, behind the same interfaces as physical ones."""

import math

from qtopt.errors import RobotError
from robot_bridge.robot import RobotState, ToolPose
from sim.arm import joint_angles
from sim.camera import SimCamera
from sim.hand import Hand
from sim.world import TIME_STEP_S, World

SETTLE_STEPS = 60
HOLDING_WIDTH_M = 0.003
_HOME_Z_M = 0.25
_SPEED_M_S = 0.4
_DWELL_S = 0.4
_HELD_HEIGHT_M = 0.08


class SimRobot:
    """The arm as a ``robot_bridge.robot.Robot``.

    Args:
        world: the physics world.
        hand: its hand.
        camera: told to keep a frame before a motion has ended, where there is latency.
    """

    def __init__(self, world: World, hand: Hand, camera: SimCamera) -> None:
        self._world, self._hand, self._camera = world, hand, camera
        self.latency_s = 0.0

    def state(self) -> RobotState:
        """Returns where the hand is."""
        return RobotState(self._hand.pose(), self._hand.closed, self._hand.width())

    def move(self, target: ToolPose) -> ToolPose:
        """Moves in a straight line; returns the pose reached. Raises RobotError where the arm cannot reach."""
        self._check_open()
        joint_angles(target)
        if self.latency_s > 0.0:
            self._move(self._before_end(target))
            self._camera.keep()
        self._move(target)
        return self._hand.pose()

    def grip(self, *, close: bool) -> None:
        """Closes or opens the fingers."""
        self._check_open()
        before = self._world.steps
        self._hand.grip(close=close)
        self._settle(before)

    def home(self, start: ToolPose) -> ToolPose:
        """Opens the fingers, rises, and comes down on ``start``."""
        self._check_open()
        joint_angles(start)
        if self._hand.closed:
            self.grip(close=False)
        here = self._hand.pose()
        self._move(ToolPose(here.x_m, here.y_m, max(here.z_m, _HOME_Z_M), here.yaw_rad))
        self._move(ToolPose(start.x_m, start.y_m, _HOME_Z_M, start.yaw_rad))
        self._move(start)
        return self._hand.pose()

    def stop(self) -> None:
        """Does nothing: between calls the hand stands still."""

    def close(self) -> None:
        """Frees the world; a second call does nothing."""
        self._world.close()

    def _check_open(self) -> None:
        if self._world.client < 0:
            raise RobotError("the simulated arm was closed; make a new environment")

    def _move(self, target: ToolPose) -> None:
        before = self._world.steps
        holding = self._hand.closed and self._hand.width() > HOLDING_WIDTH_M
        self._hand.move(target, holding=holding)
        self._settle(before)

    def _settle(self, steps_before: int) -> None:
        """After physics: lets what was pushed come to rest. What never stirred needs no look."""
        if self._world.steps != steps_before:
            held = self._hand.held() if self._hand.closed else None
            self._world.settle(SETTLE_STEPS, besides=held)

    def _before_end(self, target: ToolPose) -> ToolPose:
        here = self._hand.pose()
        gap = (target.x_m - here.x_m, target.y_m - here.y_m, target.z_m - here.z_m)
        length = math.hypot(*gap)
        share = max(0.0, 1.0 - self.latency_s * _SPEED_M_S / length) if length > 1e-6 else 1.0
        x_m, y_m, z_m = (a + share * b for a, b in zip((here.x_m, here.y_m, here.z_m), gap, strict=True))
        return ToolPose(x_m, y_m, z_m, here.yaw_rad + share * (target.yaw_rad - here.yaw_rad))


class SimDetector:
    """The judge: an object is held when both fingers touch it, well above the floor, after a wait under gravity."""

    def __init__(self, world: World, hand: Hand) -> None:
        self._world, self._hand = world, hand

    def lifted(self) -> bool:
        """Returns whether both fingers touch an object."""
        return self._hand.held() is not None

    def doubts(self) -> bool:
        """Returns False: the simulated width does not err."""
        return False

    def judge(self) -> bool | None:
        """Lets time pass and returns whether an object is still held up."""
        self._world.step(round(_DWELL_S / TIME_STEP_S))
        held = self._hand.held()
        return held is not None and self._world.position(held)[2] > _HELD_HEIGHT_M
