"""Damaged calls to a real server, a process of its own: it must go on answering, clearly, at the same size."""

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
from google.protobuf.message import DecodeError

from qtopt.apps.drills.joining import PATIENCE_S, join_within
from qtopt.apps.drills.mutate import damage_bytes
from qtopt.apps.drills.request_targets import waiting_at_most
from qtopt.apps.drills.targets import IMAGE_PX, Target
from qtopt.apps.process import free_port
from qtopt.rpc import ClientConfig, connect
from qtopt.rpc.roles import ROLES, is_general
from qtopt.rpc.status import ERROR_KEY
from qtopt.types import JsonValue

_METHODS: Final[Mapping[str, str]] = {method.rpartition("/")[2]: method for method in ROLES}
_ENDLESS: Final = "Watch"
_THREADS: Final = 4
_DEADLINE_S: Final = 30.0
_WAIT_S: Final = 0.01
_PATIENCE_A_CALL_S: Final = 0.1
_UNCLEAR: Final = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED)


def fuzz_server(targets: list[Target], inputs: int, seed: int, room: Path) -> tuple[dict[str, JsonValue], list[str]]:
    """Sends damaged requests; returns the figures and what went wrong.

    Args:
        targets: those that are named as a method of a server's are used.
        inputs: requests to send; none starts no server.
        seed: of all chance.
        room: directory for the server's files.
    """
    if not inputs:
        return {}, []
    port = free_port()
    words = ["serve", f"--listen.port={port}", f"--image-px={IMAGE_PX}", "--replay.min-free-mb=0"]
    words += [f"--store={room / 'live-store'}", f"--models={room / 'live-models'}"]
    with (room / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "qtopt.cli", *words], stdout=log, stderr=log)
    try:
        with connect(ClientConfig(f"127.0.0.1:{port}", connect_timeout_s=300.0)) as connection:
            calls = [target for target in targets if target.name in _METHODS]
            process = psutil.Process(server.pid)
            senders = _Senders(calls, port, seed)
            senders.send(inputs // 5)
            warm_mb = process.memory_info().rss / 1e6
            senders.send(inputs - inputs // 5)
            stats = connection.replay.stats()
            growth_mb = process.memory_info().rss / 1e6 - warm_mb
    finally:
        server.terminate()
        server.wait(30.0)
    breaches = [f"live: {name} ({count} times)" for name, count in senders.unclear.items()]
    sent = sum(_THREADS * (count // _THREADS) for count in (inputs // 5, inputs - inputs // 5))
    if senders.statuses.total() != sent:
        breaches.append(f"live: {senders.statuses.total()} calls had a status, expected {sent}; see what is said above")
    if server.returncode:
        breaches.append(f"live: the server ended with {server.returncode}, expected 0")
    if growth_mb > 64:
        breaches.append(f"live: the server grew by {growth_mb:.0f} MB")
    figures: dict[str, JsonValue] = {
        "calls": senders.statuses.total(),
        "statuses": dict(senders.statuses),
        "unclear": senders.unclear.total(),
        "episodes_stored": stats["episodes"],
        "rss_warm_mb": round(warm_mb, 1),
        "rss_growth_mb": round(growth_mb, 1),
        "exit_code": server.returncode,
    }
    return figures, breaches


class _Senders:
    """Threads that send damaged requests.

    Attributes:
        statuses: of the answers, by name.
        unclear: answers that told nothing that a client could act on.
    """

    def __init__(self, targets: list[Target], port: int, seed: int) -> None:
        self._targets, self._port, self._seed = targets, port, seed
        self._lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        self.unclear: Counter[str] = Counter()

    def send(self, count: int) -> None:
        """Sends ``count`` requests and returns when all were answered."""
        threads = [
            threading.Thread(target=self._send, args=(number, count // _THREADS), daemon=True)
            for number in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        join_within(threads, PATIENCE_S + count * _PATIENCE_A_CALL_S)

    def _send(self, number: int, count: int) -> None:
        rng = random.Random(f"{self._seed}-{number}")
        any_size = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{self._port}", any_size) as channel:
            calls = {name: channel.unary_stream(method, _as_is, _as_is) for name, method in _METHODS.items()}
            for _ in range(count):
                target = rng.choice(self._targets)
                damage = target.damage if rng.random() < 0.8 else damage_bytes
                self._call(calls[target.name], target.name, _patient(damage(rng, rng.choice(target.seeds)), target))

    def _call(self, call: Callable[..., Any], name: str, data: bytes) -> None:
        code, details, known = grpc.StatusCode.OK, "", True
        answers = call(data, timeout=_DEADLINE_S)
        try:
            for _ in answers:
                if name == _ENDLESS:
                    answers.cancel()
                    break
        except grpc.RpcError as error:
            code, details = error.code(), str(error.details())
            metadata: Any = error.trailing_metadata()
            known = is_general(_METHODS[name]) or any(key == ERROR_KEY for key, _ in metadata or ())
        with self._lock:
            self.statuses[code.name] += 1
            if code in _UNCLEAR or "internal error" in details or not known:
                self.unclear[f"{name}: {code.name}: {details[:160]}"] += 1


def _as_is(data: bytes) -> bytes:
    return data


def _patient(data: bytes, target: Target) -> bytes:
    """Returns a request that asks the server to wait only briefly, where it can be read at all."""
    assert target.kind is not None  # methods take messages
    try:
        request: bytes = waiting_at_most(_WAIT_S, target.kind.FromString(data)).SerializeToString()
    except DecodeError:
        return data
    return request
