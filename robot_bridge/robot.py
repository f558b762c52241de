"""What a cell is made of: an arm with a two-finger gripper, a camera, a judge of grasps and a bin.

Each is a Protocol of a few verbs. A simulated cell and a physical one differ in what stands behind them, nowhere else.
Poses are of the *tool point*, the point between the finger tips, in the robot's base frame.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qtopt.errors import RobotError
from qtopt.types import FloatArray, JsonValue, Outcome, UInt8Array


@dataclass(frozen=True, slots=True)
class ToolPose:
    """Position [m] and azimuth [rad] of the tool point in the base frame; the fingers point straight down.

    At azimuth 0 the fingers open along the base frame's x axis; at ``yaw_rad`` along (cos yaw, sin yaw, 0).
    """

    x_m: float
    y_m: float
    z_m: float
    yaw_rad: float

    def array(self) -> FloatArray:
        """Returns float32 (4,): x, y, z [m], azimuth [rad]."""
        return np.array([self.x_m, self.y_m, self.z_m, self.yaw_rad], np.float32)


@dataclass(frozen=True, slots=True)
class RobotState:
    """Where the tool is, what the gripper was last told, and how far apart the fingers are.

    Attributes:
        tool: the tool point.
        gripper_closed: the gripper was last told to close.
        gripper_width_m: between the fingers.
        gripper_closed_by_m: how much nearer they came when they were told to close; infinite where that is not known.
    """

    tool: ToolPose
    gripper_closed: bool
    gripper_width_m: float
    gripper_closed_by_m: float = math.inf


class StepHeld(RobotError):
    """A step of an episode was held, and the arm may move again.

    It stands where it was held. The rest of the step was chosen for what was seen before, so it is not made.
    """


class Robot(Protocol):
    """An arm with a two-finger gripper; calls return when it stands still and raise RobotError on a fault."""

    def state(self) -> RobotState:
        """Returns what the arm measures now."""
        ...

    def move(self, target: ToolPose) -> ToolPose:
        """Moves straight, or over what is in the way; returns the pose reached, short of ``target`` if blocked.

        Raises ``StepHeld`` where something passing held it on its way, which counts as no fault.
        """
        ...

    def grip(self, *, close: bool) -> None:
        """Closes the fingers with limited force, or opens them fully; raises ``StepHeld`` as ``move`` does, unmoved."""
        ...

    def home(self, start: ToolPose) -> ToolPose:
        """Opens the fingers and goes to ``start`` from above; returns the pose reached."""
        ...

    def stop(self) -> None:
        """Stands still at once; the fingers keep what they hold."""
        ...

    def close(self) -> None:
        """Stops and frees the connection to the arm; a second call does nothing."""
        ...


class ImageSource(Protocol):
    """The over-the-shoulder camera."""

    def capture(self) -> UInt8Array:
        """Returns a frame of its own, RGB, uint8 (H, W, 3), taken after the arm stood still."""
        ...


class SuccessDetector(Protocol):
    """Tells whether the fingers hold an object up."""

    def lifted(self) -> bool:
        """Returns at once whether an object seems to be held up; used to tell a dropped object from a missed one."""
        ...

    def doubts(self) -> bool:
        """Returns whether closed fingers that seem empty are worth judging all the same; asked once per episode."""
        ...

    def judge(self) -> bool | None:
        """Waits, at the clear height, and returns whether an object is still held; None if undecided."""
        ...


class BinKeeper(Protocol):
    """Looks after what lies in the bin, between episodes."""

    def prepare(self, seed: int | None) -> Mapping[str, JsonValue]:
        """Makes the bin ready for an episode, refilled where needed; returns facts to store with the episode.

        ``seed`` starts a new, repeatable sequence of bins; None goes on with the present one.
        """
        ...

    def finish(self, outcome: Outcome) -> Mapping[str, JsonValue]:
        """Takes note of how the episode came out and takes an object that was lifted out of the fingers.

        Returns facts to store with the episode: the evidence behind the outcome.
        """
        ...
