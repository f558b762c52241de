"""What every process of ours does first: logs, a polite end on signals, and no life after its parent."""

import contextlib
import ctypes
import io
import logging
import os
import resource
import signal
import socket
import sys
import time
from types import FrameType
from typing import TextIO, cast

import structlog

PARENT_VARIABLE = "QTOPT_PARENT_PID"
"""Set by the supervisor; a process that has it ends when that parent is gone, however it went."""

LOG_VARIABLE = "QTOPT_LOG_LEVEL"
"""``debug`` logs every single episode too, on the collector and on the server."""

_PR_SET_PDEATHSIG = 1
_HARD_LIMIT_S = 9.0
_IMPATIENT_S = 0.5
_LOOK_S = 0.05


class StopSignal:
    """Turns SIGTERM and SIGINT into a question that loops ask.

    A process started by a person ends at once at the second signal; one under a supervisor ends 9 s after the first,
    whatever it is doing. The handler sets plain attributes only: locks could be held by the very code it interrupts.
    """

    def __init__(self) -> None:
        self._stopped = False
        self._at = 0.0
        self.number = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        """Returns whether the process shall end."""
        return self._stopped

    def wait(self, timeout_s: float) -> bool:
        """Sleeps for ``timeout_s``, or until the process shall end; returns whether it shall."""
        deadline = time.monotonic() + timeout_s
        while not self._stopped and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_S))
        return self._stopped

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        supervised = PARENT_VARIABLE in os.environ
        if self._stopped:
            # the kernel may send the signal of a dying parent once for each of the parent's threads
            if not supervised and time.monotonic() > self._at + _IMPATIENT_S:
                os._exit(128 + number)
            return
        self._stopped, self._at, self.number = True, time.monotonic(), number
        if supervised:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, _HARD_LIMIT_S)


def begin(role: str) -> StopSignal:
    """Sets up logs, signals and the bond to the parent process; returns what loops ask whether to stop."""
    set_up_logs(role, sys.stderr)
    stop = StopSignal()
    _die_with_parent()
    return stop


def begin_motion(role: str) -> None:
    """Sets up logs; a signal ends this process as an exception does, wherever it is: on the way out the arm is stopped.

    For commands whose work is one motion after the other, with no loop that could ask whether to go on.
    """
    set_up_logs(role, sys.stderr)
    end_on_sigterm()
    _die_with_parent()


def end_on_sigterm() -> None:
    """Has SIGTERM end this process as an exception does, so that nothing that it started is left behind."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)


def limit_threads(count: int) -> None:
    """Lets torch and OpenCV use ``count`` threads, as roles share a machine's cores, and keep the memory they free."""
    import cv2
    import torch

    from qtopt.rpc.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def allow_open_files() -> None:
    """Raises how many files this process may hold open to what the system lets it: segments, connections, logs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """Returns a port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def logger() -> structlog.stdlib.BoundLogger:
    """Returns the process's structured log."""
    log: structlog.stdlib.BoundLogger = structlog.get_logger()
    return log


def say(text: str) -> None:
    """Writes to the standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def set_up_logs(role: str, to: TextIO) -> None:
    """Sends logs to ``to``: JSON lines, or coloured ones in a terminal."""
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if to.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    stream = cast(TextIO, _Unfailing(to))

    def name_role(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["role"] = role  # no context variable: threads begin without any
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        name_role,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    debugging = os.environ.get(LOG_VARIABLE, "").lower() == "debug"
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debugging else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    handler = logging.StreamHandler(stream)  # of libraries, and of parts of ours that do without structlog
    plain = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=plain, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Unfailing(io.TextIOBase):
    """Passes text on; what cannot be written, as on a full disk or to a closed stream (a ValueError), is lost.

    A log must not end who writes it.
    """

    def __init__(self, to: TextIO) -> None:
        self._to = to

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._to.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._to.flush()


def _die_with_parent() -> None:
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before the bond was made
        os.kill(os.getpid(), signal.SIGTERM)
