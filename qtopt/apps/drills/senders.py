"""Collectors without arms: the real way of an episode from a spool over a connection, many in one process.

Each has a spool, an outbox and a connection of its own, as every collector has, and episodes of a real one's size.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import tyro

from qtopt.apps.benches.episodes import again, make_episode
from qtopt.apps.drills.joining import PATIENCE_S, join_within
from qtopt.apps.drills.mutual_tls import secured_client
from qtopt.apps.process import begin
from qtopt.config import STRICT
from qtopt.interfaces import EpisodeSink
from qtopt.loops.outbox import Outbox
from qtopt.rpc import ClientConfig, connect
from qtopt.types import Episode
from robot_bridge.spool import Spool

Journal = np.ndarray[tuple[int, int], np.dtype[np.float64]]
"""A sender's acknowledgements (N, 2): when [s, monotonic], and after how long [s]."""
_LAST_S: Final = 30.0
"""For so long a sender that was told to stop tries to deliver what it has."""


@dataclass(frozen=True)
class Config:
    """Some senders.

    Attributes:
        server: where episodes go.
        root: directory of their spools, ``sender-N`` each, and of their journals of acknowledgements.
        first: number of the first.
        count: how many.
        image_px: height and width of the frames [px].
        every_s: time between the ends of two episodes of one sender [s]; 0 sends one after another.
        seed: of the episodes' content.
        secrets: directory of what each proves itself with, ``sender-N`` each; None takes ``server`` as it is.
    """

    __pydantic_config__ = STRICT

    server: ClientConfig = field(default_factory=ClientConfig)
    root: Path = Path("outputs/senders")
    first: int = 0
    count: int = 1
    image_px: int = 72
    every_s: float = 0.0
    seed: int = 0
    secrets: Path | None = None


def name_of(number: int) -> str:
    """Returns a sender's name."""
    return f"sender-{number}"


def spool_of(root: Path, number: int) -> Path:
    """Returns the directory of a sender's spool."""
    return root / name_of(number)


def read_journal(root: Path, number: int) -> Journal:
    """Returns a sender's acknowledgements."""
    path = spool_of(root, number).with_suffix(".acknowledged")
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    return np.array([line.split() for line in whole.splitlines()], np.float64).reshape(-1, 2)


class _Timed:
    """An EpisodeSink that writes down when each acknowledgement came, and how long it took."""

    def __init__(self, sink: EpisodeSink, journal: Path) -> None:
        self._sink, self._journal = sink, journal.open("a", buffering=1)

    def append(self, episode: Episode) -> bool:
        """Stores an episode; see ``EpisodeSink.append``."""
        started = time.monotonic()
        is_new = self._sink.append(episode)
        now = time.monotonic()
        self._journal.write(f"{now:.6f} {now - started:.6f}\n")
        return is_new


def _ends(start: float, every_s: float, stop: threading.Event) -> Iterator[None]:
    """Yields at the end of each episode, until told to stop."""
    due = start
    while not stop.wait(max(0.0, due - time.monotonic())):
        yield
        due = max(due + every_s, time.monotonic() - every_s)  # what was missed is made up for by one episode only


def _send(config: Config, number: int, episode: Episode, stop: threading.Event) -> None:
    spool_at = spool_of(config.root, number)
    episode = replace(episode, collector=spool_at.name)
    server = secured_client(config.secrets, spool_at.name, config.server) if config.secrets else config.server
    with contextlib.closing(Spool(spool_at)) as spool, connect(server) as remote:
        outbox = Outbox(_Timed(remote.replay, spool_at.with_suffix(".acknowledged")), spool)
        offset_s = config.every_s * ((number * 0.618) % 1.0)
        for _ in _ends(time.monotonic() + offset_s, config.every_s, stop):
            outbox.keep(again(episode), stop.is_set)
            outbox.flush()
        deadline = time.monotonic() + _LAST_S
        while outbox.waiting and time.monotonic() < deadline:
            outbox.flush(limit=1000)
            time.sleep(0.1)


def main(config: Config) -> int:
    """Sends until told to stop; returns 1 if a sender failed."""
    told = begin(f"senders/{config.first}")
    episode = make_episode(np.random.default_rng(config.seed), config.image_px)
    stop, failed = threading.Event(), threading.Event()

    def send(number: int) -> None:
        try:
            _send(config, number, episode, stop)
        except BaseException:
            failed.set()
            raise

    numbers = range(config.first, config.first + config.count)
    threads = [
        threading.Thread(target=send, args=(number,), name=f"sender-{number}", daemon=True) for number in numbers
    ]
    for thread in threads:
        thread.start()
    while not told.wait(0.5) and not failed.is_set():
        pass
    stop.set()
    join_within(threads, _LAST_S + PATIENCE_S)
    return int(failed.is_set())


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
