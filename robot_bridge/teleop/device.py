"""What a person's device says, whatever it is: shares of the step limits, flags, and whether they want the controls."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from qtopt.specs import make_action
from qtopt.types import FloatArray
from robot_bridge.config import MotionLimits


@dataclass(frozen=True, slots=True)
class Command:
    """What the person wants for one step.

    Attributes:
        forward, left, up: shares of the largest step along x, y and z of the base frame, -1 to 1.
        turn: share of the largest change of azimuth, counter-clockwise seen from above, -1 to 1.
        close, open_: what the fingers shall do; neither leaves them as they are.
        terminate: whether to end the episode.
        takeover: whether the person holds the controls; their command then counts, also if it is to stand still.
    """

    forward: float = 0.0
    left: float = 0.0
    up: float = 0.0
    turn: float = 0.0
    close: bool = False
    open_: bool = False
    terminate: bool = False
    takeover: bool = False

    @property
    def holds(self) -> bool:
        """Whether nothing is asked for: stand still, fingers as they are."""
        return replace(self, takeover=False) == HOLD

    def action(self, limits: MotionLimits) -> FloatArray:
        """Returns the action, float32 (8,), within the step limits of the cell."""
        forward, left, up, turn = np.clip((self.forward, self.left, self.up, self.turn), -1.0, 1.0).tolist()
        step = (forward * limits.step_xy_m, left * limits.step_xy_m, up * limits.step_z_m)
        return make_action(
            step,
            turn * limits.step_yaw_rad,
            close=self.close and not self.open_,
            open_=self.open_ and not self.close,
            terminate=self.terminate,
        )


HOLD = Command()
"""Stand still."""


class Device(Protocol):
    """A keyboard, a gamepad, or anything else that a person steers with."""

    def read(self, wait_s: float) -> Command:
        """Returns what the person wants now, waiting at most ``wait_s`` [s] for them to want anything at all.

        What was entered while nobody read is not acted on later.

        Raises:
            RobotError: the device is gone.
        """
        ...

    def close(self) -> None:
        """Frees the device and leaves it as it was found; a second call does nothing."""
        ...
