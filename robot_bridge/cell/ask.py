"""What the arm's process was asked for and is about, and what it says when that is over."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from robot_bridge.cell.channel import Message
from robot_bridge.contracts import MotionOutcome, MotionResult, Reaction, Verdict
from robot_bridge.safety.facts import Phase

_CHOSEN: Final = ("move", "grip", "may_move")
_TOO_OLD: Final = Verdict(
    Reaction.HOLD,
    "collector_heartbeat",
    "the collector fell silent since its last word; what it asks for may have been chosen from a picture of before",
)


@dataclass
class Ask:
    """Something asked for that is under way.

    Attributes:
        message: what was asked for.
        ended_by: the verdict that ended it early, if one did.
        told: why nothing may set off for it any more: somebody asked for a stop, or motion was locked.
        clearing: a stop of the controller is being cleared: the arm cannot move, and a stop would end what starts.
        opening_m: how far the fingers were apart when it began to move them.
        set_off: the arm was sent on its way for it.
    """

    message: Message
    ended_by: Verdict | None = None
    told: Verdict | None = None
    clearing: bool = False
    opening_m: float | None = None
    set_off: bool = False

    def was_ended_by(self, rule: str) -> bool:
        """Whether that rule ended it early."""
        return self.ended_by is not None and self.ended_by.rule == rule

    def was_ended_by_another_than(self, rule: str) -> bool:
        """Whether something ended it early, and another rule than ``rule``."""
        return self.ended_by is not None and self.ended_by.rule != rule


class Unheard:
    """Whether a collector that is heard again asks for something that it chose before it fell silent.

    Wherever between its picture and its word it was frozen: in an episode that word is held, so that it looks again.

    Args:
        hold_s: the silence that counts [s].
    """

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._was_silent = False

    def note(self, silence_s: float | None) -> None:
        """Takes note of how long the collector has been silent by now."""
        self._was_silent = self._was_silent or (silence_s is not None and silence_s > self._hold_s)

    def judge(self, do: str, phase: Phase) -> Message | None:
        """Returns the answer to what may not be done; None where it may. Whatever is asked for ends the silence."""
        was_silent, self._was_silent = self._was_silent, False
        if not was_silent or phase is not Phase.EPISODE or do not in _CHOSEN:
            return None
        return said(MotionResult(MotionOutcome.REJECTED, _TOO_OLD.reason), _TOO_OLD)


def said(result: MotionResult, verdict: Verdict | None) -> Message:
    """Returns a motion's end as the collector is told it, with the verdict that ended it early, if one did."""
    message: dict[str, Any] = {"outcome": result.outcome.value, "reason": result.reason, "rule": ""}
    if verdict is not None:
        message |= {"rule": verdict.rule, "reason": verdict.reason, "reaction": verdict.reaction.value}
    if result.pose is not None:
        numbers = [*result.pose.position_m, *result.pose.quaternion_xyzw]
        if bool(np.all(np.isfinite(numbers))):
            message["pose"] = numbers
    return message
