"""Child processes under watch: each in its own session, its output in a log, restarted when it dies, never orphaned."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qtopt.apps.process import PARENT_VARIABLE, logger
from qtopt.errors import CheckpointError, ConfigError, ProcessFailed, SchemaMismatch

_PERMANENT = (ConfigError.exit_code, SchemaMismatch.exit_code, CheckpointError.exit_code)
"""Errors that a restart does not mend."""


@dataclass
class Child:
    """One role's process.

    Attributes:
        name: shown to the user and naming the log.
        arguments: of ``python -m qtopt.cli``.
        log: file that takes its output.
        nice: added to its scheduling priority number.
        deaths: times [s, monotonic] of unexpected ends.
        process: the running process; None between an end and a restart.
        restart_at: when to start it again [s, monotonic].
    """

    name: str
    arguments: Sequence[str]
    log: Path
    nice: int = 0
    deaths: list[float] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    restart_at: float = 0.0

    def start(self) -> None:
        """Starts the process. Signals typed at the terminal reach the supervisor alone, which ends it in order."""
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        command = [sys.executable, "-m", "qtopt.cli", *self.arguments]
        if self.nice:
            command = ["nice", "-n", str(self.nice), *command]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **threads, PARENT_VARIABLE: str(os.getpid())},
            )
        if self.nice:
            _lower_session(self.process.pid, self.nice)

    def running(self) -> bool:
        """Returns whether the process is alive."""
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Starts children, restarts the ones that die, ends all of them in order. Use as a context manager."""

    def __init__(self, logs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._logs, self._clock = logs, clock
        self.children: dict[str, Child] = {}

    def start(self, name: str, arguments: Sequence[str], *, nice: int = 0) -> Child:
        """Starts ``python -m qtopt.cli <arguments>`` under ``name``."""
        child = Child(name, arguments, self._logs / f"{name}.log", nice)
        self.children[name] = child
        child.start()
        return child

    def watch(self, *, once: bool = False, most_deaths: int = 5, within_s: float = 120.0) -> None:
        """Restarts children that died, each time after a longer wait.

        Args:
            once: take an end without error for a child's proper end and forget the child.
            most_deaths: deaths that end the run.
            within_s: time in which they are counted [s].

        Raises:
            ProcessFailed: a child died ``most_deaths`` times within ``within_s`` seconds, or of a wrong setting.
        """
        now = self._clock()
        for child in list(self.children.values()):
            if child.process is None:
                if now >= child.restart_at:
                    child.start()
                continue
            code = child.process.poll()
            if code is None:
                continue
            child.process = None
            if once and code == 0:
                del self.children[child.name]
                continue
            child.deaths = [at for at in child.deaths if at > now - within_s] + [now]
            logger().error("process died", process=child.name, exit_code=code, deaths=len(child.deaths))
            if len(child.deaths) >= most_deaths or code in _PERMANENT:
                raise ProcessFailed(
                    f"{child.name} ended with code {code}, {len(child.deaths)} time(s) within {within_s:.0f} s, "
                    f"expected it to go on; its last words: {last_line(child.log)!r}; see {child.log}"
                )
            child.restart_at = now + min(10.0, 0.5 * 2 ** (len(child.deaths) - 1))

    def stop(self, names: Sequence[str], grace_s: float) -> None:
        """Asks the named children to end, and kills what has not within ``grace_s`` seconds."""
        chosen = [self.children.pop(name) for name in names if name in self.children]
        for child in chosen:
            if child.running() and child.process is not None:
                child.process.send_signal(signal.SIGTERM)
        deadline = self._clock() + grace_s
        for child in chosen:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.05, deadline - self._clock()))
            except subprocess.TimeoutExpired:
                logger().warning("process killed: it did not end in time", process=child.name, grace_s=grace_s)
                child.process.kill()
                child.process.wait()

    def named(self, *prefixes: str) -> list[str]:
        """Returns the names of the children that begin with one of ``prefixes``."""
        return [name for name in self.children if name.startswith(prefixes)]

    def stop_all(self, phases: Sequence[tuple[Sequence[str], float]]) -> None:
        """Ends all children, one phase after the other.

        Args:
            phases: beginnings of the names of children that end together, and how long they may take [s]; what no
                phase names is killed at the end.
        """
        for prefixes, grace_s in phases:
            self.stop(self.named(*prefixes), grace_s)
        self.stop(list(self.children), 0.0)

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children.values():
            if child.running() and child.process is not None:
                child.process.kill()
                child.process.wait()


def _lower_session(pid: int, nice: int) -> None:
    """Lowers the priority of a process's session too.

    Where Linux groups the scheduler's shares by session (``kernel.sched_autogroup_enabled``), a process's own niceness
    weighs only against its siblings.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def last_line(log: Path) -> str:
    """Returns the last line of a log that is not empty."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1][:300] if lines else ""
