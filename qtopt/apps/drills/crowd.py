"""Many clients with large messages before a slow disk: how much memory the server takes, and whether all get through.

The server is a real one in a process of its own. Its disk is a pause, one episode after another, so that all wait.
"""

import contextlib
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import tyro

from qtopt.apps.benches.episodes import again, make_episode
from qtopt.apps.drills.joining import join_within
from qtopt.apps.drills.report import DrillConfig, finish
from qtopt.apps.process import begin
from qtopt.errors import QtOptError
from qtopt.replay import EpisodeStore, StoreFormat
from qtopt.rpc import BackgroundServer, ClientConfig, ServerConfig, Services, connect
from qtopt.types import Episode, JsonValue

_LIMIT_MB: Final = 1024.0


@dataclass(frozen=True)
class Config(DrillConfig):
    """Sends from a crowd.

    Attributes:
        clients: how many, each with a connection of its own.
        each: episodes that each sends, one after another.
        image_px: height and width of the frames [px]; 512 makes messages of 7 MB.
        disk_s: pause of the disk for each episode [s].
        patience_s: how long one episode, all tries of a client, and the server's end may take [s].
    """

    clients: int = 128
    each: int = 3
    image_px: int = 512
    disk_s: float = 0.1
    patience_s: float = 300.0


class _SlowStore(EpisodeStore):
    """A store whose disk rests after each episode."""

    def __init__(self, root: Path, image_px: int, rest_s: float) -> None:
        super().__init__(root, StoreFormat.for_images(image_px))
        self._rest_s, self._disk = rest_s, threading.Lock()

    def append(self, episode: Episode, digest: bytes | None = None) -> bool:
        """Stores an episode; see ``EpisodeSink.append``."""
        with self._disk:
            time.sleep(self._rest_s)
            return super().append(episode, digest)


def _serve(config: Config, root: Path, told: Pipe) -> None:
    begin("crowd-server")
    size = (config.image_px, config.image_px)
    with contextlib.closing(_SlowStore(root, config.image_px, config.disk_s)) as store:
        services = Services(size, lambda: store)
        with BackgroundServer(ServerConfig(port=0), services) as server:
            told.send(server.port)
            told.recv()


class _Crowd:
    """The clients, a thread each.

    Attributes:
        waits: time to each acknowledgement [s].
        ends: when each client had all of its own [s, monotonic].
        failures: what clients ended with.
    """

    def __init__(self, config: Config, port: int) -> None:
        self._config, self._port = config, port
        self._episode = make_episode(np.random.default_rng(config.seed), config.image_px)
        self.waits: list[float] = []
        self.ends: list[float] = []
        self.failures: list[str] = []

    def send(self, watch: Callable[[], None]) -> None:
        """Sends everything; calls ``watch`` again and again meanwhile."""
        threads = [threading.Thread(target=self._send, daemon=True) for _ in range(self._config.clients)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + self._config.patience_s
        while any(thread.is_alive() for thread in threads):
            watch()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(self.ends)} of {len(threads)} clients were done after {self._config.patience_s:g} s"
                )
            time.sleep(0.05)

    def _send(self) -> None:
        patience_s = self._config.patience_s
        client = ClientConfig(f"127.0.0.1:{self._port}", connect_timeout_s=patience_s, call_timeout_s=patience_s)
        try:
            with connect(client) as connection:
                for _ in range(self._config.each):
                    started = time.monotonic()
                    connection.replay.append(again(self._episode))
                    self.waits.append(time.monotonic() - started)
            self.ends.append(time.monotonic())
        except QtOptError as error:
            self.failures.append(f"{type(error).__name__}: {error}")


def main(config: Config) -> int:
    """Runs the drill; returns 1 after a breach."""
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="crowd-", dir=".") as root:
        told, theirs = context.Pipe()
        server = context.Process(target=_serve, args=(config, Path(root) / "store", theirs), daemon=True)
        server.start()
        if not told.poll(config.patience_s):
            raise TimeoutError(f"the server had not started after {config.patience_s:g} s")
        crowd = _Crowd(config, told.recv())
        process, sizes = psutil.Process(server.pid), [0.0]
        idle_mb = process.memory_info().rss / 1e6
        crowd.send(lambda: sizes.append(process.memory_info().rss / 1e6))
        told.send("end")
        join_within([server], config.patience_s)
        with contextlib.closing(EpisodeStore(Path(root) / "store", read_only=True)) as store:
            stored = store.stats()["episodes"]
    peak_mb, expected = max(sizes), config.clients * config.each
    breaches = list(crowd.failures)
    if stored != expected or len(crowd.waits) != expected:
        breaches.append(f"{stored} episodes stored, {len(crowd.waits)} acknowledged, expected {expected}")
    if peak_mb > _LIMIT_MB:
        breaches.append(f"the server took {peak_mb:.0f} MB, expected at most {_LIMIT_MB:.0f}")
    figures: dict[str, JsonValue] = {
        "clients": config.clients,
        "image_px": config.image_px,
        "disk_s": config.disk_s,
        "episodes": stored,
        "acknowledged": len(crowd.waits),
        "rss_idle_mb": round(idle_mb),
        "rss_peak_mb": round(peak_mb),
        "wait_p50_s": round(float(np.quantile(crowd.waits, 0.5)), 2) if crowd.waits else None,
        "wait_max_s": round(max(crowd.waits), 2) if crowd.waits else None,
        "last_client_after_first_s": round(max(crowd.ends) - min(crowd.ends), 2) if crowd.ends else None,
    }
    return finish("crowd", figures, breaches, seed=config.seed, started=started, to=config.json)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
