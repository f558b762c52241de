"""The faults of the matrix: what goes wrong, in which cells, and what must follow.

Four kinds: faults in the middle of an action, judged by the tool's way; protective stops that may be cleared without a
person; faults while a grasp is made and judged, whose label is held against what the fingers really held; faults of the
computer that the collector runs on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

Target = Literal["controller", "arm", "safety", "camera", "server", "clock"]
Reaction = Literal["nothing", "hold", "stop", "latch", "any"]

UR, XARM, HTTP, SO101, FRANKA = "ur", "xarm", "http", "so101", "franka"
ALL: Final = (UR, XARM, HTTP, SO101, FRANKA)
CONTROLLED: Final = (UR, XARM, HTTP, FRANKA)
"""Those with a controller that has a clock and stops of its own."""


@dataclass(frozen=True)
class Case:
    """A fault in the middle of an action.

    Attributes:
        name: in the table, unique.
        fault: as the fault ports call it; a signal's name for a process; how far a clock steps [s].
        reaction: ``nothing``: the episode goes on; ``hold``: the arm stands, and nothing is locked;
            ``any``: the episode goes on, or the arm stands and is locked.
        within_s: from the fault to the beginning of braking.
        rules: those that may be the first to lock motion, as several watch.
        label: of the episode.
        target: what fails.
        how: the fault's details.
        protocols: of the cells that can have it.
        down: the action leads down instead of across.
        grips: it closes the fingers instead, which must go back.
        rises: the tool is led up afterwards: the way is that until it goes down no more.
        lasts_s: the fault is taken back so soon; 0: when everything has come to rest.
    """

    name: str
    fault: str
    reaction: Reaction
    within_s: float = 0.3
    rules: tuple[str, ...] = ()
    label: Literal["aborted", "goes on", "goes on or aborted"] = "aborted"
    target: Target = "controller"
    how: Mapping[str, Any] = field(default_factory=lambda: _how())
    protocols: tuple[str, ...] = ALL
    down: bool = False
    grips: bool = False
    rises: bool = False
    lasts_s: float = 0.0


@dataclass(frozen=True)
class ClearCase:
    """A protective stop in the middle of an action, in a cell that may clear it by itself (``[recovery]``).

    The episode is aborted, and nothing moves before the controller has really cleared its stop.

    Attributes:
        name: in the table, unique.
        obstacle: as the fault ports call what is wrong with the clearing; empty for nothing.
        must: in the table.
        protocols: of the cells that can have it.
    """

    name: str
    obstacle: Literal["", "unlock_refused", "unlock_lies"]
    must: str
    protocols: tuple[str, ...] = CONTROLLED


@dataclass(frozen=True)
class GraspCase:
    """A fault while a grasp is made and judged. A success must be one in truth, and a failure, too.

    Attributes:
        name: in the table, unique.
        fault: as the fault ports call it.
        how: its details.
        when: ``begins``: before the first action; ``carried``: when the fingers are above the height of the first
            check, on their way out of the picture; ``let_go``: when they have opened over the bin, between the
            pictures.
        around: what the fingers close around.
        labels: those that the episode may get.
        protocols: of the cells that can have it.
    """

    name: str
    fault: str
    how: Mapping[str, Any]
    when: Literal["begins", "carried", "let_go"]
    around: Literal["object", "air"]
    labels: tuple[str, ...]
    protocols: tuple[str, ...] = CONTROLLED


@dataclass(frozen=True)
class HostCase:
    """A fault of the collector's computer, or of the server's, with ``qtopt robot collect`` and ``qtopt serve``.

    Every episode that a collector said it had finished must be in the store in the end, once.

    Attributes:
        name: in the table, unique.
        fault: what is done.
        must: in the table.
        within_s: from the fault to the beginning of braking; 0 where the arm is not meant.
        signal: the name of what the collector gets; empty where it gets none.
        protocols: of the cells that it is done with.
    """

    name: str
    fault: Literal["collector signalled", "disk full", "server away"]
    must: str
    within_s: float = 0.0
    signal: Literal["", "SIGKILL", "SIGSEGV", "SIGSTOP"] = ""
    protocols: tuple[str, ...] = (UR,)


AnyCase = Case | ClearCase | GraspCase | HostCase


def _how(**details: Any) -> Mapping[str, Any]:
    return MappingProxyType(details)


_SILENCE = ("link_lost", "program_stopped", "mode_lost", "state_age", "arm_process")
"""Several notice it: both monitors, the controller's watchdog, and who watches a process that waits for an answer."""
_DEAD = ("arm_process", "program_stopped")
_COLLIDED = ("protective_stop", "program_stopped", "reflex")
_MORE = (UR, HTTP)
_N20, _N40, _N80 = (_how(force_n=[0.0, 0.0, force_n]) for force_n in (20.0, 40.0, 80.0))
_ASIDE = _how(force_n=[40.0, 0.0, 0.0])
_GROWS = _how(force_n=[0.0, 0.0, 80.0], grows_s=1.0)
_LATE, _VERY_LATE = _how(most_s=0.05), _how(most_s=0.2)
_EXPOSED, _MOVED, _JAMMED = _how(what="exposure 1.4"), _how(what="shift 30"), _how(what="jammed")
_FAILED = ("nothing_grasped", "dropped")
_FEELS, _FEELS_NOT = _how(what="flag 2"), _how(what="flag 3")
_STILL_S = 0.35
"""Stop at 0.25 s of silence, and what process and network take."""

_ACTIONS: Final = (
    Case("stream silent, socket open", "silent", "latch", _STILL_S, _SILENCE),
    Case("stream alive, clock frozen", "frozen_clock", "latch", _STILL_S, _SILENCE, protocols=CONTROLLED),
    Case("frames in pieces", "split_frames", "nothing", label="goes on", protocols=(UR, XARM, SO101)),
    Case("frames twice", "duplicate_frames", "nothing", label="goes on", protocols=(UR, XARM, FRANKA)),
    Case("frames late by up to 50 ms", "late_frames", "nothing", label="goes on", how=_LATE, protocols=(UR, XARM)),
    Case(
        "frames late by up to 200 ms", "late_frames", "any", 0.65, _SILENCE, "goes on or aborted", how=_VERY_LATE,
        protocols=(UR, XARM),
    ),
    Case(
        "every connection reset", "drop_connections", "latch", 0.5, (*_SILENCE, *_DEAD, "mode_lost"),
        how=_how(away_s=0.0), protocols=(UR, XARM, SO101, FRANKA),
    ),
    Case(
        "every connection reset, nothing to connect to for 5 s", "drop_connections", "latch", 0.5,
        (*_SILENCE, *_DEAD, "mode_lost"), how=_how(away_s=5.0), protocols=(UR, XARM, SO101, FRANKA),
    ),
    Case("five replies damaged", "damaged_replies", "nothing", label="goes on", how=_how(count=5), protocols=(SO101,)),
    Case("one servo silent", "servo_silent", "latch", _STILL_S, _SILENCE, protocols=(SO101,)),
    Case("one servo overloaded", "servo_overload", "latch", 0.2, ("fault",), protocols=(SO101,)),
    Case("controller stands still for 2 s", "SIGSTOP", "latch", 2.4, (*_SILENCE, *_DEAD), target="server"),
    Case("arm's process: SIGKILL", "SIGKILL", "latch", 0.3, _DEAD, target="arm"),
    Case("arm's process: SIGSEGV", "SIGSEGV", "latch", 0.3, _DEAD, target="arm"),
    Case("arm's process: SIGSTOP", "SIGSTOP", "latch", _STILL_S, _DEAD, target="arm"),
    Case("safety process: SIGKILL", "SIGKILL", "latch", 0.3, ("safety_process",), target="safety"),
    Case("safety process: SIGSEGV", "SIGSEGV", "latch", 0.3, ("safety_process",), target="safety"),
    Case("safety process: SIGSTOP", "SIGSTOP", "latch", 0.65, ("safety_process",), target="safety"),
    Case("protective stop, collision", "protective_stop", "latch", 0.2, _COLLIDED, protocols=CONTROLLED),
    Case(
        "emergency stop", "emergency_stop", "latch", 0.2, ("emergency_stop", "program_stopped", "mode_lost"),
        protocols=(UR, XARM, HTTP),
    ),
    Case(
        "safeguard opened", "safeguard", "latch", 0.2, ("safeguard_stop", "program_stopped"),
        protocols=(UR, HTTP, FRANKA),
    ),
    Case(
        "stopped by somebody else", "program_stop", "latch", 0.2, ("program_stopped", "mode_lost"),
        protocols=(UR, XARM, FRANKA),
    ),
    Case(
        "switched to local control", "remote_control", "latch", 0.9, ("mode_lost",), how=_how(on=False), protocols=(UR,)
    ),
    Case(
        "speed slider at 10 %", "speed_slider", "hold", 0.4, ("speed_slider",), how=_how(fraction=0.1), protocols=_MORE
    ),
    Case(
        "speed slider at 10 % for a second", "speed_slider", "hold", 0.4, label="goes on", how=_how(fraction=0.1),
        protocols=_MORE, lasts_s=1.0,
    ),
    Case("pose jumps by 80 mm", "pose_jump", "latch", 0.3, ("bad_state", "box", "tcp_speed")),
    Case("pose is not a number", "nan", "latch", _STILL_S, ("bad_state", *_SILENCE), protocols=CONTROLLED),
    Case("lengths in other units", "wrong_units", "latch", 0.3, ("bad_state",), protocols=CONTROLLED),
    Case(
        "20 N on the way down", "push", "nothing", 0.25, label="goes on", how=_N20, protocols=(UR, HTTP, FRANKA),
        down=True, rises=True,
    ),
    Case(
        "40 N on the way down, for a moment", "push", "stop", 0.25, label="goes on", how=_N40, protocols=_MORE,
        down=True, rises=True, lasts_s=0.12,
    ),
    Case(
        "a force that grows to 80 N within a second, on the way down", "push", "latch", 0.9,
        ("contact_latch", *_COLLIDED), how=_GROWS, protocols=_MORE, down=True, rises=True,
    ),
    Case(
        "80 N on the way down, for a moment", "push", "latch", 0.35, ("contact_latch", *_COLLIDED), how=_N80,
        protocols=CONTROLLED, down=True, lasts_s=0.2,
    ),
    Case(
        "40 N from aside while the fingers close, for a moment", "push", "nothing", label="goes on", how=_ASIDE,
        protocols=_MORE, grips=True, lasts_s=0.12,
    ),
    Case("gripper silent", "gripper", "stop", 2.5, ("gripper",), how=_how(what="silent"), protocols=CONTROLLED),
    Case(
        "gripper silent, on the arm's own bus", "gripper", "latch", _STILL_S, _SILENCE, how=_how(what="silent"),
        protocols=(SO101,),
    ),
    Case("camera freezes", "camera", "hold", 1.4, ("camera_age", "camera"), how=_how(what="freeze")),
    Case("camera stalls", "camera", "hold", 0.9, ("camera_age",), how=_how(what="stall")),
    Case(
        "camera stalls for 0.7 s", "camera", "hold", 0.9, label="goes on", how=_how(what="stall"), lasts_s=0.7
    ),
    Case("camera black", "camera", "hold", 1.4, ("camera_age", "camera"), how=_how(what="black")),
    Case("camera's connections cut", "camera", "hold", 0.9, ("camera_age",), how=_how(what="close")),
    Case("camera's process: SIGKILL", "SIGKILL", "hold", 0.9, ("camera_age", "camera"), target="camera"),
    Case("camera's process: SIGSEGV", "SIGSEGV", "hold", 0.9, ("camera_age", "camera"), target="camera"),
    Case("camera's process: SIGSTOP", "SIGSTOP", "hold", 0.9, ("camera_age", "camera"), target="camera"),
    Case("collector's wall clock steps on by an hour", "3600", "nothing", label="goes on", target="clock"),
    Case("collector's wall clock steps back by an hour", "-3600", "nothing", label="goes on", target="clock"),
)  # fmt: skip

_CLEARS: Final = (
    ClearCase("protective stop", "", "stands; cleared after 6 s, then slowly up, and the next episode begins"),
    ClearCase(
        "protective stop, clearing it refused for 10 s", "unlock_refused",
        "stands until the controller clears it, then slowly up, and the next episode begins",
    ),
    ClearCase(
        "protective stop, clearing it said and not done", "unlock_lies",
        "stands; locked, and goes on only when a person has come",
    ),
)  # fmt: skip

_GRASPS: Final = (
    GraspCase("camera moved by 30 px between the pictures", "camera", _MOVED, "let_go", "object", ("unknown",)),
    GraspCase("the same, nothing grasped", "camera", _MOVED, "let_go", "air", ("unknown",)),
    GraspCase("exposure up by 40 % between the pictures", "camera", _EXPOSED, "let_go", "object", ("unknown",)),
    GraspCase("exposure up, nothing grasped", "camera", _EXPOSED, "let_go", "air", ("unknown",)),
    GraspCase(
        "gripper jammed, open", "gripper", _JAMMED, "begins", "object", ("unknown", "aborted", "nothing_grasped"), ALL
    ),
    GraspCase("gripper drops the object on the way", "slip", _how(), "carried", "object", _FAILED),
    GraspCase("gripper feels an object in the air", "gripper", _FEELS, "begins", "air", _FAILED),
    GraspCase(
        "gripper does not feel its object", "gripper", _FEELS_NOT, "begins", "object", ("success", "unknown", "aborted")
    ),
)

_HOSTS: Final = (
    HostCase(
        "collector on the way down: SIGKILL", "collector signalled",
        "stands; braking within 0.3 s; the next collector goes on", 0.3, "SIGKILL", ALL,
    ),
    HostCase(
        "collector on the way down: SIGSEGV", "collector signalled",
        "stands; braking within 0.3 s; the next collector goes on", 0.3, "SIGSEGV", ALL,
    ),
    HostCase(
        "collector on the way down: SIGSTOP, SIGCONT after 3 s", "collector signalled",
        "stands; braking within 0.65 s; the same collector goes on", 0.65, "SIGSTOP", ALL,
    ),
    HostCase("the spool's disk is full", "disk full", "no new episode, the arm stands; goes on when there is room"),
    HostCase(
        "server away for an hour's worth of episodes", "server away",
        "collects on; delivered when it is back, a collector's end and an attempt to start one in between",
    ),
)  # fmt: skip

CASES: Final[tuple[AnyCase, ...]] = (*_ACTIONS, *_CLEARS, *_GRASPS, *_HOSTS)


def named(name: str) -> AnyCase:
    """Returns the case of this name."""
    return next(case for case in CASES if case.name == name)
