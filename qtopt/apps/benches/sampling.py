"""Random training batches per second, 512 px, through the server: beside JPEG decoding alone, and beside torchrl's."""

import importlib.metadata
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from qtopt.apps.benches.episodes import PAPER_PX, STEPS, make_episode
from qtopt.apps.benches.measure import Line, Settings, line, rates
from qtopt.apps.benches.servers import label_all, serving
from qtopt.replay.frames import FrameCodec, decode_into, encode
from qtopt.rpc import Connection
from qtopt.types import Episode, JsonValue, UInt8Array

_EPISODES = 40
_BATCH = 32
_KEPT_ENCODED = 64
_WAIT_S = 30.0
_TORCHRL_COLUMNS = ("images", "actions", "tool_pose")


def measure(settings: Settings) -> list[Line]:
    """Measures batches of 32 labelled transitions drawn from 40 episodes of 512 px that a server stores as JPEG."""
    rng = np.random.default_rng(settings.seed)
    with tempfile.TemporaryDirectory(dir=".") as directory:
        root = Path(directory)
        with serving(root, PAPER_PX) as (connection, server):
            episodes = [make_episode(rng, PAPER_PX) for _ in range(_EPISODES)]
            for episode in episodes:
                connection.replay.append(episode)
            label_all(connection, _EPISODES)
            limit = _beside_decoding(settings, connection, episodes)
            ours = {"disk_mb": _megabytes(root / "store"), "server_memory_mb": _memory(server)}
            return [{**limit, **ours}, {**_beside_torchrl(settings, connection, episodes, root), **ours}]


def _fetch(connection: Connection) -> list[torch.Tensor]:
    """Draws a batch as the trainer does and makes tensors of it, without copies."""
    batch = connection.replay.sample_labelled(_BATCH, _WAIT_S)
    arrays = (batch.observation.image, batch.action, batch.tool_pose, batch.target)
    return [torch.from_numpy(array) for array in arrays]


def _beside_decoding(settings: Settings, connection: Connection, episodes: list[Episode]) -> Line:
    images = [image for episode in episodes for image in episode.images][:_KEPT_ENCODED]
    encoded = [encode(image, FrameCodec.JPEG) for image in images]

    def decode(start: int) -> None:
        out: UInt8Array = np.empty((_BATCH, PAPER_PX, PAPER_PX, 3), np.uint8)
        for frame, image in zip(encoded[start : start + _BATCH], out, strict=True):
            decode_into(frame, FrameCodec.JPEG, image)

    with ThreadPoolExecutor(settings.threads) as pool:

        def ours() -> float:
            list(pool.map(lambda _: _fetch(connection), range(settings.threads)))
            return float(_BATCH * settings.threads)

        def limit() -> float:
            list(pool.map(decode, [number * _BATCH % _KEPT_ENCODED for number in range(settings.threads)]))
            return float(_BATCH * settings.threads)

        per_s, reference = rates(ours, limit, settings.seconds)
    return line(
        "sample",
        per_s,
        reference,
        "transitions/s",
        f"sample_labelled({_BATCH}) over gRPC from another process, JPEG on disk and on the wire, as tensors",
        "simplejpeg decoding such frames from memory, and nothing else",
        batch=_BATCH,
        image_px=PAPER_PX,
        threads=settings.threads,
        frame_bytes=sum(map(len, encoded)) // len(encoded),
    )


def _beside_torchrl(settings: Settings, connection: Connection, episodes: list[Episode], root: Path) -> Line:
    name = "torchrl LazyMemmapStorage"
    try:
        version = importlib.metadata.version("torchrl")
        buffer = _torchrl_buffer(episodes, root / "torchrl")
    except ImportError as error:
        return {"name": "sample torchrl", "skipped": f"{name} cannot be loaded: {error}; pip install qtopt[bench]"}
    before = psutil.Process().memory_info().rss

    def theirs() -> float:
        buffer.sample()
        return float(_BATCH)

    with ThreadPoolExecutor(settings.threads) as pool:

        def ours() -> float:
            list(pool.map(lambda _: _fetch(connection), range(settings.threads)))
            return float(_BATCH * settings.threads)

        per_s, reference = rates(ours, theirs, settings.seconds)
    return line(
        "sample torchrl",
        per_s,
        reference,
        "transitions/s",
        f"sample_labelled({_BATCH}) over gRPC from another process, JPEG, as tensors",
        f"{name} {version} in this process, decoded frames, no server, no checksums",
        batch=_BATCH,
        image_px=PAPER_PX,
        threads=settings.threads,
        reference_disk_mb=_megabytes(root / "torchrl"),
        reference_memory_mb=round((psutil.Process().memory_info().rss - before) / 1e6, 1),
    )


def _torchrl_buffer(episodes: list[Episode], directory: Path) -> Any:
    """Returns a torchrl buffer that holds each transition's frame, action and pose, decoded, on disk."""
    from tensordict import TensorDict
    from torchrl import logger as torchrl_log
    from torchrl.data import LazyMemmapStorage, ReplayBuffer

    torchrl_log.setLevel("WARNING")  # it writes to the standard output, which is for our lines
    storage = LazyMemmapStorage(len(episodes) * STEPS, scratch_dir=str(directory))
    buffer = ReplayBuffer(storage=storage, batch_size=_BATCH)
    for episode in episodes:
        rows = {name: torch.from_numpy(np.array(getattr(episode, name)[:STEPS])) for name in _TORCHRL_COLUMNS}
        buffer.extend(TensorDict({**rows, "target": torch.full((STEPS,), 0.5)}, [STEPS]))
    return buffer


def _megabytes(directory: Path) -> float:
    """Disk space in use [MB]; sparse files count for what they hold."""
    files = (Path(path) / name for path, _, names in os.walk(directory) for name in names)
    return round(sum(file.stat().st_blocks * 512 for file in files) / 1e6, 1)


def _memory(process: psutil.Process) -> JsonValue:
    return round(process.memory_info().rss / 1e6, 1)
