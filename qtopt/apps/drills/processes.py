"""Processes to be killed: the real ``main`` of each role, forked from a process that has imported it already.

Importing takes seconds, which would be most of a drill; nothing else is shared, and nothing is started before the fork.
"""

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

from qtopt.apps.drills.joining import join_within
from qtopt.apps.supervisor import last_line

_ROLES: Final = tuple(f"qtopt.apps.{name}" for name in ("serve", "train", "label", "collect", "drills.senders"))
_LATER: Final = ("sim", "zarr.codecs", "zarr.storage")  # what they import only when they need it
_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG


class Processes:
    """Named processes, each one after another of its kind.

    Args:
        logs: directory that takes a log of each.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, *_ROLES, *_LATER])
        self.running: dict[str, ForkServerProcess] = {}

    def start(
        self, name: str, main: Callable[[Any], int], config: object, *, network: str | None = None, nice: int = 0
    ) -> ForkServerProcess:
        """Starts ``main(config)``.

        Args:
            name: of the process and its log.
            main: a program's function, importable by name.
            config: what it gets.
            network: network namespace to run in; None for the drill's own.
            nice: added to its scheduling priority number.
        """
        given = (main, config, self.log(name), network, nice)
        process = self._context.Process(target=_run, args=given, name=name)
        process.start()
        self.running[name] = process
        return process

    def log(self, name: str) -> Path:
        """Returns the file that takes what ``name`` says."""
        return self._logs / f"{name}.log"

    def kill(self, name: str) -> None:
        """Ends a process by SIGKILL."""
        process = self.running.pop(name)
        process.kill()
        join_within([process])

    def died(self) -> list[str]:
        """Returns, in words, which processes ended that nobody killed; they are forgotten."""
        ended = [name for name, process in self.running.items() if process.exitcode is not None]
        return [
            f"{name} ended by itself with code {self.running.pop(name).exitcode}: {last_line(self.log(name))}"
            for name in ended
        ]

    def stop(self, names: Sequence[str], timeout_s: float = 60.0) -> list[str]:
        """Asks processes to end; returns, in words, which did not do so properly."""
        chosen = {name: self.running.pop(name) for name in names if name in self.running}
        for process in chosen.values():
            process.terminate()
        deadline, wrong = time.monotonic() + timeout_s, []
        for name, process in chosen.items():
            process.join(max(0.1, deadline - time.monotonic()))
            if process.exitcode != 0:
                process.kill()
                join_within([process])
                wrong.append(f"{name} did not end when told to: {last_line(self.log(name))}")
        return wrong

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.running):
            self.kill(name)


def enter_network(name: str) -> None:
    """Moves the calling thread into a network namespace that ``ip netns add`` made."""
    handle = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {name}")
    finally:
        os.close(handle)


def _run(main: Callable[[Any], int], config: object, log: Path, network: str | None, nice: int) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # which ends with the drill, however that ends
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.nice(nice)
    if network is not None:
        enter_network(network)
    raise SystemExit(main(config))
