"""Episodes taken in durably per second: over gRPC into the store, beside a bare gRPC echo with an fsync each."""

import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from qtopt.apps.benches.echo import METHOD, OPTIONS
from qtopt.apps.benches.episodes import COMPACT_PX, PAPER_PX, STEPS, again, make_episode
from qtopt.apps.benches.measure import Line, Settings, line, rates
from qtopt.apps.benches.servers import process, serving
from qtopt.apps.process import free_port
from qtopt.errors import StoreError
from qtopt.rpc import codec
from qtopt.rpc.gen import replay_pb2 as pb
from qtopt.types import Episode

_APPEND = f"/{pb.DESCRIPTOR.services_by_name['ReplayService'].full_name}/AppendEpisode"
_SENDERS = 8
_IN_A_ROW = {COMPACT_PX: 8, PAPER_PX: 1}
_STOCK = {COMPACT_PX: 1600, PAPER_PX: 96}
"""Messages of one turn: more than are taken in two seconds."""
_WAIT_S = 60.0


def measure(settings: Settings) -> list[Line]:
    """Measures eight senders at a time; each waits for its acknowledgement, which comes when the episode is on disk.

    What they send was serialised before, on both sides: on a robot it is another machine that encodes.
    """
    return [_measure(settings, image_px) for image_px in (COMPACT_PX, PAPER_PX)]


def _measure(settings: Settings, image_px: int) -> Line:
    rng, ports = np.random.default_rng(settings.seed), (free_port(), free_port())
    episodes = [make_episode(rng, image_px) for _ in range(_SENDERS)]
    message, stock = _message(episodes[0]), deque[bytes]()
    started = time.process_time()
    for episode in episodes:
        _message(again(episode))
    encoding_ms = (time.process_time() - started) * 1e3 / _SENDERS

    def prepare() -> None:
        while len(stock) < _STOCK[image_px]:
            stock.append(_message(again(episodes[len(stock) % _SENDERS])))

    with (
        tempfile.TemporaryDirectory(dir=".") as directory,
        serving(Path(directory), image_px, ports[0]),
        process(_echo(ports[1], Path(directory)), Path(directory) / "echo.log"),
        grpc.insecure_channel(f"127.0.0.1:{ports[0]}", OPTIONS) as channel,
        grpc.insecure_channel(f"127.0.0.1:{ports[1]}", OPTIONS) as echo_channel,
        ThreadPoolExecutor(_SENDERS) as pool,
    ):
        for each in (channel, echo_channel):
            grpc.channel_ready_future(each).result(_WAIT_S)
        append: Callable[..., pb.AppendEpisodeResponse] = channel.unary_unary(
            _APPEND, bytes, pb.AppendEpisodeResponse.FromString
        )
        echo: Callable[..., bytes] = echo_channel.unary_unary(METHOD, bytes, bytes)

        def take_in() -> int:
            try:
                next_message = stock.popleft()
            except IndexError:
                return 0
            if not append(next_message, timeout=_WAIT_S).is_new:
                raise StoreError("ingest: the store knew an episode that was sent once")
            return 1

        def bounce() -> int:
            echo(message, timeout=_WAIT_S)
            return 1

        def by_all(send: Callable[[], int]) -> float:
            return float(sum(pool.map(lambda _: sum(send() for _ in range(_IN_A_ROW[image_px])), range(_SENDERS))))

        ours, reference = rates(lambda: by_all(take_in), lambda: by_all(bounce), settings.seconds, prepare)
    return line(
        f"ingest {image_px} px",
        ours,
        reference,
        "episodes/s, acknowledged when durable",
        f"gRPC over loopback into the store of another process, {STEPS} steps of {image_px} px, {_SENDERS} senders",
        "gRPC unary echo of the same bytes, written to a file with one fsync each; no protobuf, no checks, no index",
        senders=_SENDERS,
        message_bytes=len(message),
        encoding_ms=round(encoding_ms, 2),
    )


def _echo(port: int, directory: Path) -> list[str]:
    return ["qtopt.apps.benches.echo", str(port), str(directory / "echo")]


def _message(episode: Episode) -> bytes:
    request = pb.AppendEpisodeRequest()
    codec.encode_episode(episode, request.episode)
    return request.SerializeToString()
