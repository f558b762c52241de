"""What every process of ours does first: logs, a polite end on signals, and no life after its parent."""

import ctypes
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import TextIO

import structlog

PARENT_VARIABLE = "QTOPT_PARENT_PID"
"""Set by the supervisor; a process that has it ends when that parent is gone, however it went."""

_PR_SET_PDEATHSIG = 1
_HARD_LIMIT_S = 9.0


class StopSignal:
    """Turns SIGTERM and SIGINT into a question that loops ask; a second signal, or 9 s, ends the process at once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.number = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        """Returns whether the process shall end."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Sleeps for ``timeout_s``, or until the process shall end; returns whether it shall."""
        return self._event.wait(timeout_s)

    def set(self) -> None:
        """Asks the process to end, as a signal would."""
        self._event.set()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._event.is_set():
            os._exit(128 + number)
        self.number = number
        self._event.set()
        if PARENT_VARIABLE in os.environ:
            limit = threading.Timer(_HARD_LIMIT_S, os._exit, (128 + number,))
            limit.daemon = True
            limit.start()


def begin(role: str) -> StopSignal:
    """Sets up logs, signals and the bond to the parent process; returns what loops ask whether to stop."""
    set_up_logs(role, sys.stderr)
    stop = StopSignal()
    _die_with_parent()
    return stop


def limit_threads(count: int) -> None:
    """Lets torch and OpenCV use ``count`` threads: roles share a machine's cores."""
    import cv2
    import torch

    torch.set_num_threads(count)
    cv2.setNumThreads(count)


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
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(to),
    )
    structlog.contextvars.bind_contextvars(role=role)
    logging.basicConfig(stream=to, level=logging.WARNING, force=True)


def _die_with_parent() -> None:
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before the bond was made
        os.kill(os.getpid(), signal.SIGTERM)
