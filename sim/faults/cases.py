"""The faults of the matrix: what goes wrong, in which cells, and what must follow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

Target = Literal["controller", "arm", "safety", "server", "clock"]
Reaction = Literal["nothing", "hold", "stop", "latch"]

UR, XARM, HTTP = "ur", "xarm", "http"
ALL: Final = (UR, XARM, HTTP)


@dataclass(frozen=True)
class Case:
    """A fault in the middle of an action.

    Attributes:
        name: in the table, unique.
        fault: as the fault ports call it; a signal's name for a process; how far a clock steps [s].
        reaction: ``nothing``: the episode goes on; ``hold``: the arm stands, and nothing is locked.
        within_s: from the fault to the beginning of braking.
        rules: those that may be the first to lock motion, as several watch.
        label: of the episode.
        target: what fails.
        how: the fault's details.
        protocols: of the cells that can have it.
        down: the action leads down instead of across.
        rises: the tool is led up afterwards: the way is that until it first stands.
        lasts_s: the fault is taken back so soon; 0: when everything has come to rest.
    """

    name: str
    fault: str
    reaction: Reaction
    within_s: float = 0.3
    rules: tuple[str, ...] = ()
    label: Literal["aborted", "goes on"] = "aborted"
    target: Target = "controller"
    how: Mapping[str, Any] = field(default_factory=lambda: _how())
    protocols: tuple[str, ...] = ALL
    down: bool = False
    rises: bool = False
    lasts_s: float = 0.0


def _how(**details: Any) -> Mapping[str, Any]:
    return MappingProxyType(details)


_SILENCE = ("link_lost", "program_stopped", "mode_lost", "state_age", "arm_process")
"""Several notice it: both monitors, the controller's watchdog, and who watches a process that waits for an answer."""
_DEAD = ("arm_process", "program_stopped")
_COLLIDED = ("protective_stop", "program_stopped")
_MORE = (UR, HTTP)
_N20, _N40, _N80 = (_how(force_n=[0.0, 0.0, force_n]) for force_n in (20.0, 40.0, 80.0))
_STILL_S = 0.35
"""Stop at 0.25 s of silence, and what process and network take."""

CASES: Final = (
    Case("stream silent, socket open", "silent", "latch", _STILL_S, _SILENCE),
    Case("stream alive, clock frozen", "frozen_clock", "latch", _STILL_S, _SILENCE),
    Case("frames in pieces", "split_frames", "nothing", label="goes on", protocols=(UR, XARM)),
    Case("frames twice", "duplicate_frames", "nothing", label="goes on", protocols=(UR, XARM)),
    Case(
        "every connection reset", "drop_connections", "latch", 0.5, (*_SILENCE, *_DEAD, "mode_lost"),
        protocols=(UR, XARM),
    ),
    Case("controller stands still for 2 s", "SIGSTOP", "latch", 2.4, (*_SILENCE, *_DEAD), target="server"),
    Case("arm's process: SIGKILL", "SIGKILL", "latch", 0.3, _DEAD, target="arm"),
    Case("arm's process: SIGSEGV", "SIGSEGV", "latch", 0.3, _DEAD, target="arm"),
    Case("arm's process: SIGSTOP", "SIGSTOP", "latch", _STILL_S, _DEAD, target="arm"),
    Case("safety process: SIGKILL", "SIGKILL", "latch", 0.3, ("safety_process",), target="safety"),
    Case("safety process: SIGSEGV", "SIGSEGV", "latch", 0.3, ("safety_process",), target="safety"),
    Case("safety process: SIGSTOP", "SIGSTOP", "latch", 0.65, ("safety_process",), target="safety"),
    Case("protective stop, collision", "protective_stop", "latch", 0.2, _COLLIDED),
    Case("emergency stop", "emergency_stop", "latch", 0.2, ("emergency_stop", "program_stopped", "mode_lost")),
    Case("safeguard opened", "safeguard", "latch", 0.2, ("safeguard_stop", "program_stopped"), protocols=_MORE),
    Case("stopped from the pendant", "program_stop", "latch", 0.2, ("program_stopped",), protocols=(UR,)),
    Case(
        "speed slider at 10 %", "speed_slider", "hold", 0.4, ("speed_slider",), how=_how(fraction=0.1), protocols=_MORE
    ),
    Case("pose jumps by 80 mm", "pose_jump", "latch", 0.3, ("bad_state", "box", "tcp_speed")),
    Case("pose is not a number", "nan", "latch", _STILL_S, ("bad_state", *_SILENCE)),
    Case(
        "20 N on the way down", "push", "nothing", 0.25, label="goes on", how=_N20, protocols=_MORE,
        down=True, rises=True,
    ),
    Case(
        "40 N on the way down, for a moment", "push", "stop", 0.25, label="goes on", how=_N40, protocols=_MORE,
        down=True, rises=True, lasts_s=0.12,
    ),
    Case(
        "80 N on the way down, for a moment", "push", "latch", 0.35, ("contact_latch", *_COLLIDED), how=_N80,
        down=True, lasts_s=0.2,
    ),
    Case("gripper silent", "gripper", "stop", 2.5, ("gripper",), how=_how(what="silent")),
    Case("camera freezes", "camera", "hold", 1.4, ("camera_age", "camera"), how=_how(what="freeze")),
    Case("camera stalls", "camera", "hold", 0.9, ("camera_age",), how=_how(what="stall")),
    Case("camera black", "camera", "hold", 1.4, ("camera_age", "camera"), how=_how(what="black")),
    Case("camera's connections cut", "camera", "hold", 0.9, ("camera_age",), how=_how(what="close")),
    Case("collector's wall clock steps by an hour", "3600", "nothing", label="goes on", target="clock"),
)  # fmt: skip


def named(name: str) -> Case:
    """Returns the case of this name."""
    return next(case for case in CASES if case.name == name)
