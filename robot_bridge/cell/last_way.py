"""The stop channel of an arm that has no second way to it: what its own process reports, and that process's end.

Where a driver has no stop channel, the arm stops by itself when its driver's process ends: the servos of an SO-101 hold
their last goal, a Franka's controller misses its packets. So the safety process judges what the arm's process writes to
the board, which grows old when that process hangs, and ends the process where another one would send a stop.
"""

from collections.abc import Callable

from qtopt.errors import RobotError
from robot_bridge.cell.records import unpack_report
from robot_bridge.cell.shared import Board
from robot_bridge.contracts import ArmState


class LastWay:
    """Satisfies ``robot_bridge.contracts.StopChannel`` by ending the arm's process.

    Args:
        board: where that process writes its reports.
        end: ends it, at once and for good.
    """

    def __init__(self, board: Board, end: Callable[[], None]) -> None:
        self._board, self._end = board, end

    def connect(self, deadline_s: float) -> None:
        """Does nothing: the board is at hand."""

    def state(self) -> ArmState:
        """Returns the newest report; raises RobotError before the first."""
        record = self._board.arm.newest()
        report = None if record is None else unpack_report(record)
        if report is None or report.arm is None:
            raise RobotError("the arm's process has not reported yet")
        return report.arm

    def stop(self) -> bool:
        """Ends the arm's process, which stops the arm."""
        self._end()
        return True

    def close(self) -> None:
        """Frees nothing."""
