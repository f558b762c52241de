"""A server to be killed: ``qtopt serve`` as it ships, in a process forked from one that has imported it already.

Importing takes seconds, which would be most of a drill; nothing else is shared with the next server, and nothing is
started before the fork.
"""

import multiprocessing
import multiprocessing.context
import os
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from qtopt.apps import serve
from qtopt.apps.drills.steps import Moment, StepLog
from qtopt.apps.process import free_port
from qtopt.errors import ServerUnavailable
from qtopt.replay import ReplayConfig
from qtopt.rpc import ClientConfig, Connection, ServerConfig, connect

_STARTING_S = 120.0


class Served:
    """A store, and one server after another over it.

    Args:
        root: where store, networks and logs lie.
        image_px: size of the images [px].
        replay: settings of the store.
        traced: whether ``log`` is told of steps.
    """

    def __init__(self, root: Path, image_px: int, replay: ReplayConfig, *, traced: bool = False) -> None:
        self._traced = traced
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "zarr.codecs", "zarr.storage"])  # which sealing imports
        self.log = StepLog(root)
        self._root = root
        self._port = free_port()
        self._config = serve.Config(
            listen=ServerConfig(port=self._port),
            store=root / "store",
            models=root / "models",
            image_px=image_px,
            replay=replay,
        )

    @property
    def store(self) -> Path:
        """Directory of the store."""
        return self._config.store

    def said(self) -> str:
        """Returns the last lines of the servers' log."""
        return (self._root / "server.log").read_text(errors="replace")[-2000:]

    def start(self, moment: Moment | None = None) -> BaseProcess:
        """Starts a server; one with a ``moment`` ends itself then."""
        if self._traced:
            self.log.clear()
        process = self._context.Process(
            target=_serve, args=(self._config, self._root, moment), kwargs={"traced": self._traced}, daemon=True
        )
        process.start()
        return process

    def connect(self, process: BaseProcess, call_timeout_s: float = 20.0) -> Connection | None:
        """Returns a connection as soon as the server has opened its store; None if it died, or took too long."""
        config = ClientConfig(
            f"127.0.0.1:{self._port}", connect_timeout_s=1.0, call_timeout_s=call_timeout_s, attempts=1
        )
        deadline = time.monotonic() + _STARTING_S
        while process.is_alive() and time.monotonic() < deadline:
            try:
                connection = connect(config)
            except ServerUnavailable:
                continue
            while process.is_alive():
                try:
                    connection.replay.stats()
                except ServerUnavailable:
                    time.sleep(0.005)
                else:
                    return connection
            connection.close()
        return None


def _serve(config: serve.Config, root: Path, moment: Moment | None, *, traced: bool) -> None:
    log = os.open(root / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if traced:
        StepLog(root).trace(moment)
    raise SystemExit(serve.main(config))
