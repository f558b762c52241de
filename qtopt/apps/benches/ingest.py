"""Episodes taken in durably per second: over gRPC into the store, beside a file with fsync for each."""

import itertools
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from qtopt.apps.benches.episodes import IMAGE_PX, STEPS, make_episode
from qtopt.apps.benches.measure import line, rates
from qtopt.replay import EpisodeStore, StoreFormat
from qtopt.rpc import BackgroundServer, ServerConfig, Services, connect
from qtopt.specs import EPISODE_SPECS
from qtopt.types import Episode, JsonValue

_AT_ONCE = 8


def measure(seconds: float, seed: int) -> dict[str, JsonValue]:
    """Measures eight senders at a time; each waits for its acknowledgement, which comes when the episode is on disk."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(dir=".") as directory:
        root, numbers = Path(directory), itertools.count()
        (root / "files").mkdir()
        services = Services((IMAGE_PX, IMAGE_PX), lambda: store)
        with (
            EpisodeStore(root / "store", StoreFormat.for_images(IMAGE_PX)) as store,
            BackgroundServer(ServerConfig(port=0), services) as server,
            connect(server.address) as connection,
            ThreadPoolExecutor(_AT_ONCE) as pool,
        ):

            def send() -> float:
                episodes = [make_episode(rng) for _ in range(_AT_ONCE)]
                return float(sum(pool.map(connection.replay.append, episodes)))

            def write() -> float:
                episodes = [make_episode(rng) for _ in range(_AT_ONCE)]
                list(pool.map(lambda each: _write(each, root / "files" / f"{next(numbers)}.npz"), episodes))
                return float(_AT_ONCE)

            ours, reference = rates(send, write, seconds)
    return line(
        "ingest",
        ours,
        reference,
        "episodes/s, acknowledged when durable",
        f"gRPC over loopback into the store, {STEPS} steps of {IMAGE_PX} px, {_AT_ONCE} senders",
        "numpy.savez of the same arrays, one file an episode, fsync of file and directory, no network",
        senders=_AT_ONCE,
    )


def _write(episode: Episode, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **{spec.name: getattr(episode, spec.name) for spec in EPISODE_SPECS})
        file.flush()
        os.fsync(file.fileno())
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
