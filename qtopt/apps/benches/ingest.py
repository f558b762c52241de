"""Episodes taken in durably per second: over gRPC into the store, beside a bare gRPC echo with an fsync each."""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from qtopt.apps.benches.echo import METHOD
from qtopt.apps.benches.episodes import COMPACT_PX, PAPER_PX, STEPS, again, make_episode
from qtopt.apps.benches.measure import Line, Settings, line, rates
from qtopt.apps.benches.servers import process, serving
from qtopt.apps.process import free_port
from qtopt.rpc import codec
from qtopt.rpc.channel import SERVER_OPTIONS

_SENDERS = 8
_IN_A_ROW = {COMPACT_PX: 8, PAPER_PX: 1}
_WAIT_S = 60.0


def measure(settings: Settings) -> list[Line]:
    """Measures eight senders at a time; each waits for its acknowledgement, which comes when the episode is on disk."""
    return [_measure(settings, image_px) for image_px in (COMPACT_PX, PAPER_PX)]


def _measure(settings: Settings, image_px: int) -> Line:
    rng, port = np.random.default_rng(settings.seed), free_port()
    episodes = [make_episode(rng, image_px) for _ in range(_SENDERS)]
    messages = [codec.encode_episode(episode).SerializeToString() for episode in episodes]
    with (
        tempfile.TemporaryDirectory(dir=".") as directory,
        serving(Path(directory), image_px) as (connection, _),
        process(["qtopt.apps.benches.echo", str(port), str(Path(directory) / "echo")], Path(directory) / "echo.log"),
        grpc.insecure_channel(f"127.0.0.1:{port}", SERVER_OPTIONS) as channel,
        ThreadPoolExecutor(_SENDERS) as pool,
    ):
        grpc.channel_ready_future(channel).result(_WAIT_S)
        echo: Callable[..., bytes] = channel.unary_unary(METHOD, bytes, bytes)

        def append(sender: int) -> None:
            connection.replay.append(again(episodes[sender]))

        def bounce(sender: int) -> None:
            echo(messages[sender], timeout=_WAIT_S)

        def by_all(send: Callable[[int], None]) -> float:
            def some(sender: int) -> int:
                for _ in range(_IN_A_ROW[image_px]):
                    send(sender)
                return _IN_A_ROW[image_px]

            return float(sum(pool.map(some, range(_SENDERS))))

        ours, reference = rates(lambda: by_all(append), lambda: by_all(bounce), settings.seconds)
    return line(
        f"ingest {image_px} px",
        ours,
        reference,
        "episodes/s, acknowledged when durable",
        f"gRPC over loopback into the store of another process, {STEPS} steps of {image_px} px, {_SENDERS} senders",
        "gRPC unary echo of the same bytes, written to a file with one fsync each; no protobuf, no checks, no index",
        senders=_SENDERS,
        message_bytes=len(messages[0]),
    )
