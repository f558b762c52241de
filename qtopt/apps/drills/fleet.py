"""A fleet of collectors at once: at the pace of real arms, then as fast as they can, then with slow and dead ones.

The collectors have no arms (``senders.py``), but the way of their episodes is the real one: spool, connection, server.
Slow clients are processes that run for a twentieth of the time, dead ones stop for good in the middle of what they send
until the end of the phase. Beside it stands what the disk does with the same bytes from as many writers.
"""

import contextlib
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import tyro

from qtopt.apps import serve
from qtopt.apps.benches.episodes import STEPS, make_episode
from qtopt.apps.drills import raw_disk, senders
from qtopt.apps.drills.arrivals import compare
from qtopt.apps.drills.joining import join_within
from qtopt.apps.drills.mutual_tls import make_secrets, secured_client, secured_server
from qtopt.apps.drills.processes import Processes
from qtopt.apps.drills.report import DrillConfig, finish
from qtopt.apps.drills.senders import Journal
from qtopt.apps.drills.witness import Witness
from qtopt.apps.process import free_port
from qtopt.replay import ReplayConfig
from qtopt.rpc import ClientConfig, ServerConfig, codec, connect
from qtopt.types import JsonValue

_HOST: Final = "127.0.0.1"
_ARM_S: Final = 30.0
"""A real arm brings an episode in so many seconds."""
_ACKNOWLEDGED_S: Final = 0.25
_MOST_MB: Final = 1250.0
"""What the server may take at most: 984 MB were published, with 128 collectors of 472 px."""
_GROWTH_MB: Final = 2.0
"""By how much it may grow for each 1,000 episodes at full speed: 1.6 MB were published, 0.7 of them steps."""
_ENOUGH: Final = 5000
"""Episodes from which on growth is judged: before, the allocator's first pages are most of it."""
_SLOW_SHARE: Final = 0.75
"""Clients that hardly run deliver less than this of what others do, who wait for their turn most of the time."""
_AWAKE_S, _PERIOD_S = 0.05, 1.0


@dataclass(frozen=True)
class Config(DrillConfig):
    """Sends from a whole fleet.

    Attributes:
        collectors: how many.
        image_px: height and width of the frames [px]; 512 is what the paper's network is cropped from.
        pace: how many times as fast as real arms in the first phase.
        paced_s: length of the first phase [s].
        full_s: length of each of the two phases at full speed [s].
        disk_s: how long the disk alone is measured, for the bytes sent and for the bytes stored [s].
        odd: slow clients, and as many dead ones, in the last phase.
        processes: that the collectors are spread over.
        patience_s: how long starting, and delivering what is left at the end, may take [s].
        tls: whether mutual TLS stands between them and the server, with a certificate and a token for each.
        root: where everything lies while the drill runs; None makes a directory for it.
    """

    collectors: int = 128
    image_px: int = 512
    pace: float = 1.0
    paced_s: float = 120.0
    full_s: float = 120.0
    disk_s: float = 10.0
    odd: int = 8
    processes: int = 4
    patience_s: float = 300.0
    tls: bool = False
    root: Path | None = None


class _Phase:
    """The acknowledgements that some senders had between two moments."""

    def __init__(self, start: float, end: float, journals: Sequence[Journal]) -> None:
        inside = [journal[(journal[:, 0] >= start) & (journal[:, 0] < end), 1] for journal in journals]
        waits = np.concatenate(inside)
        self.least, self.most = min(map(len, inside)), max(map(len, inside))
        self.per_s = len(waits) / (end - start)
        self.p50_s = float(np.quantile(waits, 0.5)) if len(waits) else math.inf
        self.p99_s = float(np.quantile(waits, 0.99)) if len(waits) else math.inf

    def figures(self) -> dict[str, JsonValue]:
        """Returns the phase's figures by name."""
        return {
            "episodes_per_s": round(self.per_s, 2),
            "p50_s": round(self.p50_s, 4),
            "p99_s": round(self.p99_s, 4),
            "least_and_most_of_one_client": [self.least, self.most],
        }


class Drill:
    """The phases, and what was measured."""

    def __init__(self, config: Config, root: Path, processes: Processes, witness: Witness) -> None:
        self._config, self._root, self._processes, self._witness = config, root, processes, witness
        self._port = free_port()
        self._memory: list[tuple[float, float, float]] = []  # seconds, episodes, MB
        self._over = threading.Event()
        self.figures: dict[str, JsonValue] = {}
        self.breaches: list[str] = []

    def run(self) -> None:
        """Lets the phases follow one another."""
        config = self._config
        listen = self._secured() if config.tls else ServerConfig(port=self._port)
        server = serve.Config(
            listen=listen,
            store=self._root / "store",
            models=self._root / "models",
            image_px=config.image_px,
            replay=ReplayConfig(),
        )
        process = self._processes.start("server", serve.main, server)
        hello = ClientConfig(f"{_HOST}:{self._port}", connect_timeout_s=config.patience_s)
        connect(secured_client(self._secrets, senders.name_of(0), hello) if config.tls else hello).close()
        watch = threading.Thread(target=self._watch, args=(psutil.Process(process.pid),), name="watch", daemon=True)
        watch.start()
        healthy = range(config.collectors)
        paced = self._phase("paced", healthy, config.paced_s, every_s=_ARM_S / config.pace)
        alone = self._phase("full_speed", healthy, config.full_s)
        with self._odd_ones():
            beside = self._phase("full_speed_beside_slow_and_dead", healthy, config.full_s)
        self._over.set()
        join_within([watch])
        self.breaches += self._processes.stop(["server"], config.patience_s)
        self._judge(paced, alone, beside)

    def _secured(self) -> ServerConfig:
        everybody = range(self._config.collectors + 2 * self._config.odd)
        make_secrets(self._secrets, _HOST, map(senders.name_of, everybody))
        return secured_server(self._secrets, _HOST, self._port)

    def _phase(self, name: str, numbers: range, seconds: float, every_s: float = 0.0) -> _Phase:
        """Lets senders send for some seconds, counted from when each of them had an acknowledgement."""
        names = self._start(name, numbers, every_s)
        self._wait_for_all(numbers, name)
        start = time.monotonic()
        time.sleep(seconds)
        end = time.monotonic()
        self.breaches += self._processes.died() + self._processes.stop(names, self._config.patience_s)
        phase = _Phase(start, end, [senders.read_journal(self._senders, number) for number in numbers])
        self.figures[name] = phase.figures()
        return phase

    def _start(self, name: str, numbers: range, every_s: float) -> list[str]:
        started = []
        for share in np.array_split(np.array(numbers), min(self._config.processes, len(numbers))):
            config = senders.Config(
                server=ClientConfig(f"{_HOST}:{self._port}", call_timeout_s=60.0),
                root=self._senders,
                first=int(share[0]),
                count=len(share),
                image_px=self._config.image_px,
                every_s=every_s,
                seed=self._config.seed,
                secrets=self._secrets if self._config.tls else None,
            )
            started.append(f"{name}-{share[0]}")
            self._processes.start(started[-1], senders.main, config)
        return started

    @contextlib.contextmanager
    def _odd_ones(self) -> Iterator[None]:
        """Has slow and dead clients connected meanwhile; afterwards all of them are well again, and end."""
        first, odd = self._config.collectors, self._config.odd
        groups = {"slow": range(first, first + odd), "dead": range(first + odd, first + 2 * odd)}
        names = [name for kind, numbers in groups.items() for name in self._start(kind, numbers, 0.0)]
        self._wait_for_all(range(first, first + 2 * odd), "slow and dead clients")
        over = threading.Event()
        slow = threading.Thread(target=_slow_down, args=(self._pids("slow"), over), name="slow", daemon=True)
        for pid in self._pids("dead"):
            os.kill(pid, signal.SIGSTOP)
        slow.start()
        before = {kind: self._delivered(numbers) for kind, numbers in groups.items()}
        try:
            yield
        finally:
            over.set()
            join_within([slow])
        for kind, numbers in groups.items():
            self.figures[f"delivered_by_{kind}_meanwhile"] = self._delivered(numbers) - before[kind]
        for pid in self._pids("dead"):
            os.kill(pid, signal.SIGCONT)
        self.breaches += self._processes.stop(names, self._config.patience_s)

    def _pids(self, kind: str) -> list[int]:
        return [process.pid or 0 for name, process in self._processes.running.items() if name.startswith(kind)]

    def _judge(self, paced: _Phase, alone: _Phase, beside: _Phase) -> None:
        config = self._config
        episode = make_episode(np.random.default_rng(config.seed), config.image_px)
        sent = len(codec.encode_episode(episode).SerializeToString())
        stored = sum(path.stat().st_size for path in (self._root / "store").rglob("*") if path.is_file())
        each = max(1, stored // max(1, self._witness.finished))
        disk = {
            "sent": raw_disk.measure(self._root / "raw", config.collectors, sent, config.disk_s),
            "stored": raw_disk.measure(self._root / "raw", config.collectors, each, config.disk_s),
        }
        slope = self._slope()
        raw_p99 = float(str(disk["stored"]["p99_s"]))
        self.figures |= {
            "steps": STEPS,
            "message_bytes": sent,
            "stored_bytes": each,
            "raw_disk_same_bytes_as_sent": disk["sent"],
            "raw_disk_same_bytes_as_stored": disk["stored"],
            "p99_full_speed_over_raw_disk_stored": round(alone.p99_s / raw_p99, 2),
            "episodes_per_s_over_raw_disk_stored": round(alone.per_s / float(str(disk["stored"]["writes_per_s"])), 3),
            "server_mb_first_max_last": [round(self._memory[0][2]), self._peak(), round(self._memory[-1][2])],
            "server_mb_per_1000_episodes_at_full_speed": round(slope, 2),
        }
        if paced.p99_s > max(_ACKNOWLEDGED_S, raw_p99):
            self.breaches.append(f"at arms' pace p99 is {paced.p99_s:.3f} s, the raw disk's {raw_p99:.3f} s")
        for share, without, found in ((50, alone.p50_s, beside.p50_s), (99, alone.p99_s, beside.p99_s)):
            if found > 1.5 * without:
                self.breaches.append(f"p{share} is {found:.3f} s beside slow and dead clients, {without:.3f} s without")
        for phase in (alone, beside):
            if not phase.least or phase.least < 0.5 * phase.most:
                self.breaches.append(f"one client had {phase.least} episodes stored, another {phase.most}")
        due = math.floor(config.paced_s * config.pace / _ARM_S) - 1  # one may be on its way at either end
        if paced.least < due:
            self.breaches.append(f"at arms' pace one client had {paced.least} episodes stored, expected {due} or more")
        self.breaches += judge_odd(self.figures, config.odd, beside.most)
        self.breaches += judge_memory(self.figures, self._witness.delivered)

    def _watch(self, server: psutil.Process) -> None:
        started = time.monotonic()
        while not self._over.wait(1.0):
            with contextlib.suppress(psutil.NoSuchProcess):
                rss_mb = server.memory_info().rss / 1e6
                self._memory.append((time.monotonic() - started, self._witness.delivered, rss_mb))

    def _peak(self) -> int:
        return round(max(memory for _, _, memory in self._memory))

    def _slope(self) -> float:
        """Returns by how much the server grew over the last half of all episodes [MB per 1000 episodes]."""
        rows = np.array(self._memory)
        late = rows[rows[:, 1] >= rows[-1, 1] / 2]
        return float(np.polyfit(late[:, 1], late[:, 2], 1)[0]) * 1000 if np.ptp(late[:, 1]) > 0 else 0.0

    def _delivered(self, numbers: range) -> int:
        return sum(map(self._gone, numbers))

    @property
    def _senders(self) -> Path:
        return self._root / "senders"

    @property
    def _secrets(self) -> Path:
        return self._root / "secrets"

    def _gone(self, number: int) -> int:
        return len(self._witness.seen[senders.spool_of(self._senders, number)].gone)

    def _wait_for_all(self, numbers: range, what: str) -> None:
        """Returns when each has delivered something from now on."""
        before = {number: self._gone(number) for number in numbers}
        deadline = time.monotonic() + self._config.patience_s
        while not all(self._gone(number) > before[number] for number in numbers):
            self.breaches += self._processes.died()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not all had delivered after {self._config.patience_s:g} s; see the logs")
            time.sleep(0.05)


def judge_odd(figures: Mapping[str, Any], odd: int, most_of_others: int) -> list[str]:
    """Returns, in words, whether dead clients were alive or slow ones fast.

    Args:
        figures: as the drill prints them.
        odd: how many there are of each kind.
        most_of_others: what the busiest of the other clients delivered meanwhile.
    """
    dead, slow = figures["delivered_by_dead_meanwhile"], figures["delivered_by_slow_meanwhile"]
    breaches = []
    if dead > odd:  # of each, one may have been on its way
        breaches.append(f"{odd} dead clients delivered {dead} episodes, expected none but what was on its way")
    if slow > odd * most_of_others * _SLOW_SHARE:
        breaches.append(f"{odd} slow clients delivered {slow} episodes, another one {most_of_others} alone")
    return breaches


def judge_memory(figures: Mapping[str, Any], delivered: int) -> list[str]:
    """Returns, in words, what the server took too much of; growth is judged from ``_ENOUGH`` episodes on.

    Args:
        figures: as the drill prints them.
        delivered: episodes in all.
    """
    peak_mb, grown_mb = figures["server_mb_first_max_last"][1], figures["server_mb_per_1000_episodes_at_full_speed"]
    breaches = []
    if peak_mb > _MOST_MB:
        breaches.append(f"the server took {peak_mb} MB, expected {_MOST_MB:g} at most")
    if delivered >= _ENOUGH and grown_mb > _GROWTH_MB:
        breaches.append(f"the server grew by {grown_mb} MB for each 1,000 episodes, expected {_GROWTH_MB:g} at most")
    return breaches


def _slow_down(pids: Sequence[int], over: threading.Event) -> None:
    """Lets processes run for a small part of the time; leaves them running."""
    while not over.wait(_AWAKE_S):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        over.wait(_PERIOD_S - _AWAKE_S)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def main(config: Config) -> int:
    """Runs the drill; returns 1 after a breach."""
    started = time.monotonic()
    root = config.root or Path(tempfile.mkdtemp(prefix="fleet-", dir="."))
    spools = [senders.spool_of(root / "senders", number) for number in range(config.collectors + 2 * config.odd)]
    with Witness(spools) as witness:
        with Processes(root / "logs") as processes:
            drill = Drill(config, root, processes, witness)
            drill.run()
        figures, breaches = compare(witness, root / "store")
    if config.root is None:
        shutil.rmtree(root)
    sizes: dict[str, JsonValue] = {
        "collectors": config.collectors,
        "image_px": config.image_px,
        "pace": config.pace,
        "tls": config.tls,
    }
    return finish(
        "fleet",
        {**sizes, **drill.figures, **figures},
        drill.breaches + breaches,
        seed=config.seed,
        started=started,
        to=config.json,
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
