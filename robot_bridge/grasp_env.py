"""The one grasping environment: the paper's decision process over any cell.

An action is carried out in order: displacement, then gripper. An episode ends when the policy says so or at the step
limit. Then, unless the fingers are empty, the arm lifts and the detector judges; a held object is worth 1.

What was held on its way, by an old picture or an operator, ends there: the policy looks again and chooses anew, and the
action that is stored is the part that was made.
"""

import dataclasses
import logging
import math

import numpy as np

from qtopt.errors import RobotError
from qtopt.interfaces import ResetResult, StepResult
from qtopt.specs import CLOSE, OPEN, TERMINATE, make_action
from qtopt.types import FloatArray, JsonValue, Observation, Outcome
from robot_bridge.config import CellConfig
from robot_bridge.displacement import limit_action
from robot_bridge.robot import BinKeeper, ImageSource, Robot, StepHeld, SuccessDetector, ToolPose

_log = logging.getLogger(__name__)
_SAME = 0.02
"""Metres, and sine or cosine: what an arm stands beside its limits is no other action."""


class GraspEnv:
    """Runs grasp episodes in a cell; satisfies ``qtopt.interfaces.Environment``.

    Args:
        robot: the arm.
        camera: the over-the-shoulder camera.
        detector: the judge of grasps.
        bin_keeper: looks after the bin.
        config: limits, heights, rewards.
        seed: of the start poses until ``start_episode`` gives another.
    """

    def __init__(
        self,
        robot: Robot,
        camera: ImageSource,
        detector: SuccessDetector,
        bin_keeper: BinKeeper,
        config: CellConfig,
        seed: int = 0,
    ) -> None:
        self._robot, self._camera, self._detector, self._bin = robot, camera, detector, bin_keeper
        self.config = config
        self._rng = np.random.default_rng(seed)
        self._running = False
        self._steps = 0
        self._held_once = False
        self._last: tuple[Observation, FloatArray]

    def start_episode(self, seed: int | None = None) -> ResetResult:
        """Prepares the bin and goes to a random start pose over it, with open fingers."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._running = False
        facts: dict[str, JsonValue] = {"seed": seed, **self._bin.prepare(seed)}
        reached = self._robot.home(self._draw_start())
        self._running, self._steps, self._held_once = True, 0, False
        self._last = self._observe(reached), reached.array()
        return ResetResult(*self._last, facts)

    def act(self, action: FloatArray) -> StepResult:
        """Executes one action within the limits; raises RobotError when no episode is under way."""
        if not self._running:
            raise RobotError("act() was called after the end of an episode; call start_episode() first")
        try:
            tool = self._robot.state().tool
        except RobotError as error:
            return self._abort(make_action(), error)
        executed, target = limit_action(action, tool, self.config.limits)
        try:
            return self._execute(executed, tool, target)
        except RobotError as error:
            return self._abort(executed, error)

    def close(self) -> None:
        """Stops the arm and frees it."""
        self._running = False
        self._robot.close()

    def _draw_start(self) -> ToolPose:
        limits, floor = self.config.limits, self.config.floor_z_m
        low, high = self.config.start_height_m
        x_m, y_m = self._rng.uniform(limits.low_m[:2], limits.high_m[:2])
        z_m = floor + self._rng.uniform(low, high)
        return ToolPose(float(x_m), float(y_m), float(z_m), float(self._rng.uniform(-np.pi / 2, np.pi / 2)))

    def _observe(self, tool: ToolPose) -> Observation:
        height_m = tool.z_m - self.config.floor_z_m
        return Observation(self._camera.capture(), self._robot.state().gripper_closed, height_m)

    def _execute(self, executed: FloatArray, tool: ToolPose, target: ToolPose) -> StepResult:
        self._steps += 1
        terminated = bool(executed[TERMINATE])
        truncated = not terminated and self._steps >= self.config.max_steps
        if not terminated:
            try:
                self._robot.move(target)
                if executed[CLOSE] or executed[OPEN]:
                    self._robot.grip(close=bool(executed[CLOSE]))
            except StepHeld as held:
                _log.warning("step %d ends early: %s", self._steps, held)
                executed = self._made(tool)
            self._held_once = self._held_once or self._holds_up()
        if not (terminated or truncated):
            return self._result(executed, -self.config.step_penalty)
        self._running = False
        outcome = self._judge(truncated=truncated)
        result = self._result(
            executed, float(outcome is Outcome.SUCCESS), terminated=terminated, truncated=truncated, outcome=outcome
        )
        return dataclasses.replace(result, metadata=self._bin.finish(outcome))

    def _result(
        self,
        executed: FloatArray,
        reward: float,
        *,
        terminated: bool = False,
        truncated: bool = False,
        outcome: Outcome | None = None,
    ) -> StepResult:
        tool = self._robot.state().tool
        self._last = self._observe(tool), tool.array()
        observation, pose = self._last
        return StepResult(observation, reward, terminated, truncated, executed, pose, outcome)

    def _made(self, start: ToolPose) -> FloatArray:
        """Returns the action that led from ``start`` to where the tool is now, the fingers as they were.

        Raises:
            RobotError: no action leads there, as in the middle of half a turn.
        """
        here, limits = self._robot.state().tool, self.config.limits
        moved = (here.x_m - start.x_m, here.y_m - start.y_m, here.z_m - start.z_m)
        turned_rad = math.remainder(here.yaw_rad - start.yaw_rad, math.pi)
        made = make_action(moved, turned_rad)
        executed = limit_action(made, start, limits)[0]
        if not np.allclose(made, executed, atol=_SAME):
            raise RobotError(f"the step was held where no action leads: {moved} m and {turned_rad:.2f} rad")
        return executed

    def _fingers_full(self) -> bool:
        return self._robot.state().gripper_width_m >= self.config.empty_width_m

    def _closed_and_high(self) -> bool:
        state = self._robot.state()
        return state.gripper_closed and state.tool.z_m - self.config.floor_z_m >= self.config.lifted_height_m

    def _holds_up(self) -> bool:
        return self._closed_and_high() and self._fingers_full() and self._detector.lifted()

    def _judge(self, *, truncated: bool) -> Outcome:
        held: bool | None = False
        if self._closed_and_high() and (self._fingers_full() or self._detector.doubts()):
            self._lift()
            held = self._detector.judge()
        if held is None:
            return Outcome.UNKNOWN
        if held:
            return Outcome.SUCCESS
        if self._held_once:
            return Outcome.DROPPED
        return Outcome.TIMED_OUT if truncated else Outcome.NOTHING_GRASPED

    def _lift(self) -> None:
        """Rises straight up to the clear height; no policy chose that, so what held it once is gone on with."""
        tool = self._robot.state().tool
        clear_z_m = max(tool.z_m, self.config.floor_z_m + self.config.clear_height_m)
        target = ToolPose(tool.x_m, tool.y_m, clear_z_m, tool.yaw_rad)
        try:
            self._robot.move(target)
        except StepHeld as held:
            _log.warning("the way up to the judge was held: %s", held)
            self._robot.move(target)

    def _abort(self, executed: FloatArray, error: RobotError) -> StepResult:
        _log.error("episode aborted after %d steps: %s", self._steps, error)
        self._running = False
        self._robot.stop()
        facts: dict[str, JsonValue] = {**self._bin.finish(Outcome.ABORTED), "abort": str(error)}
        try:
            result = self._result(executed, 0.0, truncated=True, outcome=Outcome.ABORTED)
        except RobotError as silent:
            # What failed may be what would have to be asked; the episode has to end all the same.
            _log.error("the end of the episode was not seen: %s", silent)
            observation, pose = self._last
            result = StepResult(
                observation,
                0.0,
                terminated=False,
                truncated=True,
                executed=executed,
                tool_pose=pose,
                outcome=Outcome.ABORTED,
            )
        return dataclasses.replace(result, metadata=facts)
