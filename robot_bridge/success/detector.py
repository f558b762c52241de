"""The judge of grasps of a physical cell: width first, then the drop test, with arm and camera.

What was held is let go over a random point of the bin, so the bin stays full and the objects keep moving around in it.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qtopt.errors import ConfigError
from qtopt.types import UInt8Array
from robot_bridge.config import CellConfig
from robot_bridge.robot import ImageSource, Robot, ToolPose
from robot_bridge.success.images import median_picture
from robot_bridge.success.staged import GraspVerdict, Stage, StagedJudge
from robot_bridge.success_config import SuccessConfig

_CLOSED_M = 0.002
"""Fingers that were told to close came so much nearer, or did not close."""


class DropTestDetector:
    """A ``robot_bridge.robot.SuccessDetector`` over an arm and a camera.

    Args:
        robot: the arm with its fingers.
        camera: looks at the bin in full resolution, not in the network's.
        config: limits and thresholds, as calibrated.
        cell: heights, the workspace, and the width from which on closed fingers hold something.
        clear_m: tool point [m] at which the arm is out of the camera's view, however the tool is turned; at least at
            the cell's clear height.
        seed: of the points over which objects are let go, and of nothing else.
        sleep: waits [s].
        leave_bin: called before motions that no policy makes, out of the bin and across it.
    """

    def __init__(
        self,
        robot: Robot,
        camera: ImageSource,
        config: SuccessConfig,
        cell: CellConfig,
        clear_m: tuple[float, float, float],
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
        leave_bin: Callable[[], None] = lambda: None,
    ) -> None:
        travel_z_m = cell.floor_z_m + cell.clear_height_m
        if clear_m[2] < travel_z_m:
            raise ConfigError(
                f"the clear pose is at z {clear_m[2]} m, expected at least {travel_z_m:.3f} m, the clear height: "
                "the arm goes there and back in a straight line over the rim"
            )
        self._robot, self._camera, self._config, self._cell = robot, camera, config, cell
        self._clear_m, self._sleep, self._leave_bin = clear_m, sleep, leave_bin
        self._rng = np.random.default_rng([seed, 2])
        self._judge = StagedJudge(config, cell.empty_width_m)
        self._empties = 0
        self._audit = False
        self._last: GraspVerdict | None = None

    def lifted(self) -> bool:
        """Returns whether the closed fingers are further apart than empty ones."""
        state = self._robot.state()
        return state.gripper_closed and state.gripper_width_m >= self._cell.empty_width_m

    def doubts(self) -> bool:
        """Returns whether fingers that seem empty are to be judged all the same: always, never, or every twentieth."""
        if self._config.drop_test == "always":
            return True
        if self._config.drop_test == "never":
            return False
        self._empties += 1
        self._audit = self._empties % self._config.audit_every == 0
        return self._audit

    def judge(self) -> bool | None:
        """Carries the procedure out and returns whether an object was held; None if undecided.

        Afterwards the arm is at its clear pose; after a drop test the fingers are open and the object is in the bin.

        Raises:
            RobotError: arm or camera failed; nothing was judged.
        """
        audit, self._audit, self._last = self._audit, False, None
        self._judge.begin(audit=audit)
        while stage := self._judge.needs():
            self._serve(stage)
        self._last = self._judge.verdict()
        return self._last.held

    def take_verdict(self) -> GraspVerdict | None:
        """Returns the verdict of the last ``judge`` with its evidence, once; None where there is none."""
        last, self._last = self._last, None
        return last

    def put_back(self) -> None:
        """Lets go of what the fingers hold, over a random point of the bin, and rises; raises RobotError.

        Fingers that look empty, or did not close, open high up: lowered into a heap they would move it, and what moved
        looks like an object. What they may hold all the same is thin, and may fall.
        """
        self._leave_bin()
        low_down, limits, config = self.lifted() and self._did_close(), self._cell.limits, self._config
        low, high = np.array(limits.low_m[:2]), np.array(limits.high_m[:2])
        x, y = ((low + high) / 2 + config.drop_share * (high - low) * self._rng.uniform(-0.5, 0.5, 2)).tolist()
        here = self._robot.state().tool
        travel_z_m = max(here.z_m, self._cell.floor_z_m + self._cell.clear_height_m)
        above = ToolPose(x, y, travel_z_m, here.yaw_rad)
        self._robot.move(replace(here, z_m=travel_z_m))
        self._robot.move(above)
        if low_down:
            self._robot.move(replace(above, z_m=self._cell.floor_z_m + config.drop_height_m))
        self._robot.grip(close=False)
        self._robot.move(above)

    def _serve(self, stage: Stage) -> None:
        config = self._config
        if stage is Stage.WIDTH_CHECK:
            self._sleep(config.check_wait_s)
            self._judge.feed(stage, width_m=self._robot.state().gripper_width_m)
        elif stage is Stage.WIDTH_CLEAR:
            if self._go_clear():
                self._sleep(config.clear_wait_s)
                self._judge.feed(stage, width_m=self._robot.state().gripper_width_m)
                if not self._did_close():
                    # They would be lowered into what lies there, and what they move looks like an object.
                    self._judge.spoil("the fingers did not close: they stand as far apart as before")
        elif stage is Stage.PICTURE_BEFORE:
            self._judge.feed(stage, picture=self._picture())
        else:
            self.put_back()
            if self._go_clear():
                self._sleep(config.settle_s)
                self._judge.feed(stage, picture=self._picture())

    def _did_close(self) -> bool:
        state = self._robot.state()
        return not state.gripper_closed or state.gripper_closed_by_m >= _CLOSED_M

    def _go_clear(self) -> bool:
        """Moves out of view; where that fails the verdict is unknown, as the arm hides a part of the bin.

        The tool is not turned: in the simulator a turn lost 6 of 103 held objects, and 4 of 449 are lost without.
        """
        self._leave_bin()
        wanted = ToolPose(*self._clear_m, self._robot.state().tool.yaw_rad)
        reached = self._robot.move(wanted)
        gap_m = float(np.hypot(np.hypot(reached.x_m - wanted.x_m, reached.y_m - wanted.y_m), reached.z_m - wanted.z_m))
        if gap_m > self._config.pose_tolerance_m:
            self._judge.spoil(f"the arm ended {1000 * gap_m:.0f} mm from its clear pose")
            return False
        return True

    def _picture(self) -> UInt8Array:
        return median_picture([self._camera.capture() for _ in range(self._config.frames)])
