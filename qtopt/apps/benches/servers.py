"""Processes that the measurements talk to: our server as it ships, and the barest gRPC server there is."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil

from qtopt.apps.benches.episodes import ROWS, STEPS
from qtopt.apps.process import PARENT_VARIABLE, free_port
from qtopt.errors import ServerUnavailable
from qtopt.rpc import ClientConfig, Connection, connect
from qtopt.types import Targets

_STARTING_S = 120.0


@contextlib.contextmanager
def process(arguments: Sequence[str], log: Path) -> Iterator[psutil.Process]:
    """Runs ``python -m <arguments>`` during the block, on one thread of its libraries; then ends it."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **threads, PARENT_VARIABLE: str(os.getpid())}
    with log.open("ab") as output:
        child = subprocess.Popen([sys.executable, "-m", *arguments], stdout=output, stderr=output, env=environment)
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        try:
            child.wait(15.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def serving(root: Path, image_px: int, port: int | None = None) -> Iterator[tuple[Connection, psutil.Process]]:
    """Runs ``qtopt serve`` over a new store in ``root``; yields a connection to it and its process."""
    port = port or free_port()
    flags = ["--listen.port", str(port), "--store", str(root / "store"), "--models", str(root / "models")]
    with (
        process(["qtopt.cli", "serve", *flags, "--image-px", str(image_px)], root / "server.log") as child,
        connect(ClientConfig(f"127.0.0.1:{port}", connect_timeout_s=_STARTING_S, call_timeout_s=60.0)) as connection,
    ):
        _wait_until_open(connection)
        yield connection, child


def _wait_until_open(connection: Connection) -> None:
    """Returns when the server has opened its store: it shakes hands before."""
    deadline = time.monotonic() + _STARTING_S
    while True:
        try:
            connection.replay.stats()
        except ServerUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def label_all(connection: Connection, episodes: int) -> None:
    """Gives every transition of ``episodes`` episodes of the benches' length a label."""
    rows = np.arange(episodes * ROWS, dtype=np.int64).reshape(episodes, ROWS)
    position = np.ascontiguousarray(rows[:, :STEPS].reshape(-1))
    connection.replay.put_targets(Targets(position, np.full(len(position), 0.5, np.float32), 1))
