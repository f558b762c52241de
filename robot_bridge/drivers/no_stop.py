"""The stop channel of an arm that has no second way to it: it says so, and the arm's process is to be ended instead."""

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmState


class NoStopChannel:
    """Satisfies ``robot_bridge.contracts.StopChannel`` as far as it honestly can: it neither reads nor stops.

    Args:
        why: which way is missing and what stops the arm when its process ends, in words.

    Attributes:
        why: the same.
    """

    def __init__(self, why: str) -> None:
        self.why = why

    def connect(self, deadline_s: float) -> None:
        """Does nothing; there is nothing to connect to."""

    def state(self) -> ArmState:
        """Raises RobotError: there is no second report."""
        raise RobotError(f"no independent report: {self.why}")

    def stop(self) -> bool:
        """Returns False: end the arm's process."""
        return False

    def close(self) -> None:
        """Does nothing."""
