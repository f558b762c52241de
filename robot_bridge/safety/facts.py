"""What the monitor is told besides commands and reports: what the cell is doing, who is alive, what its devices say."""

from dataclasses import dataclass
from enum import StrEnum

from robot_bridge.contracts import Reaction, Verdict

ALLOWED = Verdict(Reaction.ALLOW)
_SEVERITY = {reaction: number for number, reaction in enumerate(Reaction)}


class Phase(StrEnum):
    """What the cell is doing. A new monitor is idle."""

    IDLE = "idle"  # no motion is allowed
    EPISODE = "episode"  # steps of a policy: they stay in the bin and are small
    TRANSIT = "transit"  # home, clear pose, drop test: anywhere in the region
    RETRACT = "retract"  # out of a contact or a protective stop: up, slowly, or back, nothing else


class Heartbeat(StrEnum):
    """Whose silence matters."""

    COLLECTOR = "collector"
    POLICY = "policy"
    ARM = "arm"


@dataclass(frozen=True, slots=True)
class CellFacts:
    """The newest word on the devices around the arm.

    Attributes:
        camera_age_s: age of the newest picture; None while nobody needs one.
        camera_fault: frozen, dark, overexposed; empty for none.
        gripper_fault: in words; empty for none.
        disk_free: share of the spool's disk that is free.
    """

    camera_age_s: float | None = None
    camera_fault: str = ""
    gripper_fault: str = ""
    disk_free: float = 1.0


def worst(*verdicts: Verdict) -> Verdict:
    """Returns the severest verdict, the first of several alike; a warning outweighs a plain ALLOW."""
    found = ALLOWED
    for verdict in verdicts:
        if verdict is ALLOWED:
            continue
        gained = _SEVERITY[verdict.reaction] - _SEVERITY[found.reaction]
        if gained > 0 or (gained == 0 and verdict.rule and not found.rule):
            found = verdict
    return found


def is_at_least(verdict: Verdict | None, reaction: Reaction) -> bool:
    """Returns whether there is a verdict, and as severe as ``reaction``, or severer."""
    return verdict is not None and _SEVERITY[verdict.reaction] >= _SEVERITY[reaction]
