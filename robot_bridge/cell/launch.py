"""Starting the processes of a cell. Children are new interpreters, never forks, and share only what is passed."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_NICE: Final = -5
_KILLED_S: Final = 5.0


def spawn(module: str, settings: dict[str, Any], fds: Sequence[int]) -> subprocess.Popen[bytes]:
    """Starts ``python -m module SETTINGS`` with only ``fds`` passed on, apart from the terminal's Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(settings)],
        pass_fds=tuple(fds),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def prefer() -> None:
    """Asks for more processor time than other programs get; goes on without where that is not allowed."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)


def die_at_once() -> None:
    """Forgoes a core dump: as long as one is written, a crashed process keeps its connections open and looks alive."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def lives(process: int, module: str) -> bool:
    """Returns whether ``process`` runs ``module`` as ``spawn`` started it; one that has ended does not."""
    try:
        return module.encode() in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def running_with(module: str, cell: Path) -> list[int]:
    """Returns the processes that run ``module`` as ``spawn`` started it, for the cell file ``cell``."""
    found = []
    for number in (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
            settings = json.loads(words[words.index(module.encode()) + 1])
            if settings["cell"] == str(cell.resolve()):
                found.append(number)
    return found


def end(process: subprocess.Popen[bytes], wait_s: float) -> int:
    """Waits until a process has ended, kills it at the end of ``wait_s``; returns its exit code.

    One that a device keeps in the kernel even then is left behind, as good as killed: it ends when that lets it go.
    """
    for patience_s in (wait_s, _KILLED_S):
        try:
            return process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return -signal.SIGKILL
