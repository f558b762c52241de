"""Faults drawn by chance for a cell that runs for long: what goes wrong, for how long, and how it is put right."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sim.faults.cells import SimulatedCell

Processes = Callable[[], Mapping[str, int]]
_PROCESSES: Final = ("arm", "safety", "camera", "collector")


@dataclass(frozen=True)
class Trouble:
    """Something that goes wrong.

    Attributes:
        name: unique.
        lasts_s: from the fault until it is put right.
        fault: of the controller's fault port; empty where a process is meant.
        how: its details.
        process: the one that gets ``number``.
        number: the signal; a process that was stopped goes on after ``lasts_s``.
    """

    name: str
    lasts_s: float
    fault: str = ""
    how: Mapping[str, Any] | None = None
    process: str = ""
    number: int = 0


TROUBLES: Final = (
    Trouble("stream silent", 1.5, "silent"),
    Trouble("clock frozen", 1.5, "frozen_clock"),
    Trouble("frames in pieces", 5.0, "split_frames"),
    Trouble("frames twice", 5.0, "duplicate_frames"),
    Trouble("connections reset", 0.5, "drop_connections"),
    Trouble("protective stop", 0.5, "protective_stop"),
    Trouble("emergency stop", 1.0, "emergency_stop"),
    Trouble("safeguard", 1.0, "safeguard"),
    Trouble("program stopped", 0.5, "program_stop"),
    Trouble("slider at 10 %", 3.0, "speed_slider", {"fraction": 0.1}),
    Trouble("pose jump", 1.0, "pose_jump"),
    Trouble("not a number", 1.0, "nan"),
    Trouble("20 N", 0.4, "push", {"force_n": [0.0, 0.0, 20.0]}),
    Trouble("40 N", 0.4, "push", {"force_n": [0.0, 0.0, 40.0]}),
    Trouble("80 N", 0.4, "push", {"force_n": [0.0, 0.0, 80.0]}),
    Trouble("gripper silent", 3.0, "gripper", {"what": "silent"}),
    Trouble("gripper jammed", 3.0, "gripper", {"what": "jammed"}),
    Trouble("camera freezes", 2.0, "camera", {"what": "freeze"}),
    Trouble("camera stalls", 0.8, "camera", {"what": "stall"}),
    Trouble("camera black", 2.0, "camera", {"what": "black"}),
    *(Trouble(f"{who}: SIGKILL", 0.5, process=who, number=signal.SIGKILL) for who in _PROCESSES),
    *(Trouble(f"{who}: SIGSTOP", 3.0, process=who, number=signal.SIGSTOP) for who in _PROCESSES),
    Trouble("server killed, back after 15 s", 15.0, process="server", number=signal.SIGKILL),
)


def make(trouble: Trouble, sim: SimulatedCell, processes: Processes) -> None:
    """Makes it happen, waits, and puts everything right that a person or a supervisor would."""
    if trouble.fault:
        sim.inject(trouble.fault, **(trouble.how or {}))
        time.sleep(trouble.lasts_s)
    else:
        pid = processes().get(trouble.process)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, trouble.number)
                time.sleep(trouble.lasts_s)
                os.kill(pid, signal.SIGCONT)
    sim.heal()


def draw(rng: random.Random, so_far: Mapping[str, int]) -> Trouble:
    """Returns one of those that came least often so far."""
    fewest = min(so_far.get(each.name, 0) for each in TROUBLES)
    return rng.choice([each for each in TROUBLES if so_far.get(each.name, 0) == fewest])
