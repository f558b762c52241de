"""Dying at a chosen step: a profiler in the server's own threads that knows every line of the store's code.

A step is a line of ``qtopt.replay`` that calls something, in a phase: opening, append, seal, retire, labels. In each
phase there is one thread at a time, whichever it is. The profiler is Python's own (``sys.setprofile``), installed from
outside: the store knows nothing of it.
"""

import linecache
import mmap
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

_STORE_CODE: Final = f"{os.sep}qtopt{os.sep}replay{os.sep}"
_PHASE_OF_FUNCTION: Final = {
    "EpisodeStore.__init__": "opening",
    "GroupCommitter._commit_group": "append",
    "EpisodeStore._seal_one": "seal",
    "EpisodeStore.retire": "retire",
    "EpisodeStore._save_labels": "labels",
}
_PHASES: Final = tuple(_PHASE_OF_FUNCTION.values())
_SLOT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Moment:
    """When to die.

    Attributes:
        step: the step's name.
        occurrence: the how-manieth time it is reached, from 1.
        delay_s: how long after it began [s]; 0 is before it does anything.
    """

    step: str
    occurrence: int
    delay_s: float


class StepLog:
    """Names of steps in a file, one a line, and beside it which of them each phase is at."""

    def __init__(self, directory: Path) -> None:
        self._names = directory / "steps.txt"
        self._now = directory / "steps.now"

    def clear(self) -> None:
        """Begins anew, for another process."""
        self._names.write_text("")
        self._now.write_bytes(bytes(_SLOT_BYTES * len(_PHASES)))

    def names(self) -> list[str]:
        """Returns the steps reached, in order of their first time."""
        return self._names.read_text().splitlines()

    def last(self) -> list[str]:
        """Returns the steps that were under way when the process was last heard of."""
        data, names = self._now.read_bytes(), self.names()
        slots = (int.from_bytes(data[start : start + _SLOT_BYTES], "little") for start in range(0, len(data), 4))
        return [names[slot - 1] for slot in slots if 0 < slot <= len(names)]

    def trace(self, moment: Moment | None) -> None:
        """Installs the profiler in all threads begun from now on; it ends the process at ``moment``."""
        threading.setprofile(_Profiler(self._names, self._now, moment))


class _Profiler:
    def __init__(self, names: Path, now: Path, moment: Moment | None) -> None:
        self._names = os.open(names, os.O_WRONLY | os.O_APPEND)
        with now.open("r+b") as file:
            self._now = mmap.mmap(file.fileno(), 0)
        self._moment = moment
        self._left = moment.occurrence if moment is not None else 0
        self._lock = threading.Lock()
        self._local = threading.local()
        self._steps: dict[tuple[CodeType, int, str], tuple[int, str]] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        phase: str | None = getattr(self._local, "phase", None)
        if phase is None:
            if event == "call" and frame.f_code.co_qualname in _PHASE_OF_FUNCTION:
                self._local.phase = _PHASE_OF_FUNCTION[frame.f_code.co_qualname]
                self._local.outermost = frame
        elif event == "return" and frame is self._local.outermost:
            self._local.phase = self._local.outermost = None
            self._note(phase, 0)
        elif event == "c_call" and _in_store(frame):
            self._reach(frame, phase)
        elif event == "call" and not _in_store(frame):  # else its own lines are steps
            caller = frame.f_back
            if caller is not None and _in_store(caller):
                self._reach(caller, phase)

    def _reach(self, frame: FrameType, phase: str) -> None:
        key = (frame.f_code, frame.f_lineno, phase)
        known = self._steps.get(key)
        if known is None:
            known = self._learn(key)
        number, name = known
        self._note(phase, number)
        if self._moment is not None and name == self._moment.step:
            self._left -= 1
            if self._left == 0:
                self._die(self._moment.delay_s)

    def _note(self, phase: str, number: int) -> None:
        slot = _SLOT_BYTES * _PHASES.index(phase)
        self._now[slot : slot + _SLOT_BYTES] = number.to_bytes(_SLOT_BYTES, "little")

    def _learn(self, key: tuple[CodeType, int, str]) -> tuple[int, str]:
        code, line, phase = key
        source = linecache.getline(code.co_filename, line).strip()
        name = f"{phase}: {Path(code.co_filename).stem} {code.co_qualname}: {source}"
        with self._lock:
            if key not in self._steps:
                os.write(self._names, f"{name}\n".encode())
                self._steps[key] = (len(self._steps) + 1, name)
        return self._steps[key]

    def _die(self, delay_s: float) -> None:
        if delay_s == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        # The kernel's timer ends the process wherever it is then, in Python or not: nobody handles this signal.
        signal.setitimer(signal.ITIMER_REAL, delay_s)


def _in_store(frame: FrameType) -> bool:
    return _STORE_CODE in frame.f_code.co_filename
