"""Kills a server under load at any moment, hundreds of times, on one store: nothing acknowledged may be lost or torn.

Senders append over gRPC, samplers draw and label, a reader follows the files, while the store seals and retires all the
time. A third of the kills, and those whose step is not reached again, come by the clock, two in five in all; the others
at a step of the store's code (``steps.py``), the steps with the fewest turns first, half of them a random time into it.
After each kill the next server opens the store, and all that is in it is compared with what was sent.

With ``--reserve`` the store has a small disk that something else fills again and again, to around the room that is to
be kept free: episodes are refused, sealed into smaller segments or not at all, and go on when there is room.

With ``--power`` the store has a disk of its own, an ext4 file system in a file, and each kill takes its power as well:
what was not flushed is gone, as the kernel's own tests of file systems have it.
"""

import contextlib
import functools
import gc
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import numpy as np
import tyro

from qtopt.apps.drills.audit import Audit, Ledger
from qtopt.apps.drills.disks import BreakableDisk, Filler, small_disk
from qtopt.apps.drills.episodes import Checker, numbered_episode
from qtopt.apps.drills.report import finish
from qtopt.apps.drills.served import Served
from qtopt.apps.drills.steps import Moment
from qtopt.apps.process import StopSignal
from qtopt.errors import ConfigError, QtOptError, StoreFull
from qtopt.replay import EpisodeStore, ReplayConfig, RetentionConfig
from qtopt.rpc import Connection
from qtopt.types import JsonValue, Targets

_IMAGE_PX = 16
_SENDERS = 3
_DISK_MB = 128
_SMALL_MB, _RESERVE_MB = 24, 4.0
_LEFT_MB = _RESERVE_MB - 0.5, _RESERVE_MB + 2.0
"""What is left of the small disk when it is filled."""
_ANSWERS_S: Final = 10.0
"""Within so many seconds of its start a server answers: 3.1 at most were published, over stores of this size."""
_ENOUGH: Final = 3
_ENOUGH_FULL: Final = 20
"""Kills in which something has to have been acknowledged and compared, and refused on a disk that is filled."""
_STORE = ReplayConfig(
    segment_mb=0.1, seal_after_s=0.3, quarantine_mb=0.0, min_free_mb=0.0, retention=RetentionConfig(max_gb=0.0006)
)


@dataclass(frozen=True)
class Config:
    """Kills a server again and again.

    Attributes:
        times: kills.
        seed: of all chance.
        load_s: how long a server is under load at most before it is killed [s].
        root: where the store lies while the drill runs; None makes a directory for it.
        json: file that the result is written to as well.
        power: whether the store's disk loses its power with each kill; mounts a disk, which needs the rights to.
        reserve: whether the store's disk is filled again and again to around what is kept free; mounts one as well.
    """

    times: int = 500
    seed: int = 0
    load_s: float = 1.5
    power: bool = False
    reserve: bool = False
    root: Path | None = None
    json: Path | None = None

    def __post_init__(self) -> None:
        if self.power and self.reserve:
            raise ConfigError(
                "kill_server: found --power and --reserve, expected one of them: each brings its own disk"
            )


class _Load:
    """Threads that append, sample, label and read until ``over`` is set or the server is gone.

    With ``may_refuse`` a sender tries again what the store has no room for; otherwise that counts as a breach.
    """

    def __init__(
        self, connection: Connection, store: Path, ledger: Ledger, checker: Checker, *, may_refuse: bool
    ) -> None:
        self._connection, self._store, self._ledger, self._checker = connection, store, ledger, checker
        self._may_refuse = may_refuse
        self.over = threading.Event()
        self.refused = 0
        self.torn = 0
        self.read = 0
        self.surprises: list[str] = []
        senders = [functools.partial(self._send, sender) for sender in range(_SENDERS)]
        work: list[Callable[[], None]] = [*senders, self._sample, self._follow]
        self._threads = [threading.Thread(target=self._until_over, args=(each,)) for each in work]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Ends the threads; the server is gone."""
        self.over.set()
        for thread in self._threads:
            thread.join()

    def _until_over(self, work: Callable[[], None]) -> None:
        try:
            while not self.over.is_set():
                work()
        except QtOptError as error:
            if not self.over.wait(2.0):
                self.surprises.append(f"{type(error).__name__}: {error}")

    def _send(self, sender: int) -> None:
        number = self._ledger.begin(sender)
        try:
            is_new = self._connection.replay.append(numbered_episode(sender, number, _IMAGE_PX))
        except StoreFull:
            if not self._may_refuse:
                raise
            self.refused += 1
            self.over.wait(0.02)
            return
        self._ledger.acknowledged(sender, is_new=is_new)

    def _sample(self) -> None:
        drawn = self._connection.replay.sample_transitions(16, 2.0)
        self._note(len(drawn.position), self._checker.torn_transitions(drawn))
        self._connection.replay.put_targets(Targets(drawn.position, np.full(16, 0.5, np.float32), 1))
        labelled = self._connection.replay.sample_labelled(16, 2.0)
        self._note(len(labelled.position), self._checker.torn_labelled(labelled))

    def _follow(self) -> None:
        with EpisodeStore(self._store, read_only=True) as reader:
            for _ in range(20):
                if self.over.is_set():
                    return
                drawn = reader.sample_transitions(16, 2.0)
                self._note(len(drawn.position), self._checker.torn_transitions(drawn))
                self.over.wait(0.02)

    def _note(self, count: int, torn: int) -> None:
        self.read += count
        self.torn += torn


class Drill:
    """The kills, one after another, and what was found."""

    def __init__(self, config: Config, root: Path, disk: BreakableDisk | None) -> None:
        self._config, self._disk = config, disk
        self._chance = random.Random(config.seed)
        replay = replace(_STORE, min_free_mb=_RESERVE_MB) if config.reserve else _STORE
        self._served = Served(root, _IMAGE_PX, replay, traced=True)
        self._checker = Checker(_IMAGE_PX)
        self._ledger = Ledger(_SENDERS)
        self._audit = Audit(self._served.store, self._ledger, _IMAGE_PX, cut_off=config.power)
        self._turns: dict[str, int] = {}
        self._deaths: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._recovery_s: list[float] = []
        self._kills = 0
        self._read = 0
        self._refused = 0
        self._missed = 0
        self.breaches: list[str] = []

    def run(self, stop: StopSignal) -> None:
        """Kills as often as was asked, or until it is told to stop, then opens once more."""
        while self._kills < self._config.times and not stop():
            self._round(last=False)
        self._round(last=True)

    def figures(self) -> dict[str, JsonValue]:
        """Returns what was found."""
        phases: Counter[str] = Counter()
        for step, count in self._deaths.items():
            phases[step.partition(":")[0]] += count
        recovery = np.percentile(self._recovery_s, [50, 99, 100]).round(3).tolist()
        return {
            "kills": self._kills,
            **self._ledger.figures(),
            "refused_for_want_of_room": self._refused,
            "sampled_and_compared": self._read,
            "recovery_s_p50_p99_max": recovery,
            "deaths_by": {**self._found},
            "steps_not_reached_again": self._missed,
            "deaths_in_phase": {**phases},
            "steps_known": len(self._turns),
            "steps_died_in": sum(count > 0 for count in self._deaths.values()),
            "deaths_at_step": {step: count for step, count in sorted(self._deaths.items()) if count},
        }

    def _round(self, *, last: bool) -> None:
        number = self._kills
        self._kills += not last
        moment = None if last else self._choose()
        process = self._served.start(moment)
        started = time.monotonic()
        connection = self._served.connect(process)
        if connection is not None:
            self._recovery_s.append(time.monotonic() - started)
            with connection:
                self._audited(number)
                if last:
                    process.kill()
                else:
                    self._load(connection, process, moment)
        elif process.is_alive():
            self.breaches.append(f"round {number}: the server did not open its store in time")
            process.kill()
        process.join(10.0)
        if process.exitcode not in (-signal.SIGKILL, -signal.SIGALRM):
            self.breaches.append(f"round {number}: the server ended with {process.exitcode}; see server.log")
        self._count_death(process, moment)
        process.close()

    def _audited(self, number: int) -> None:
        for breach in self._audit.check():
            self.breaches.append(f"round {number}: {breach}")

    def _load(self, connection: Connection, process: BaseProcess, moment: Moment | None) -> None:
        may_refuse = self._config.reserve
        load = _Load(connection, self._served.store, self._ledger, self._checker, may_refuse=may_refuse)
        process.join(3 * self._config.load_s if moment else self._chance.uniform(0, self._config.load_s))
        if self._disk is not None:
            load.over.set()  # what it reads from now on is no matter
            self._disk.cut()
        process.kill()
        process.join()
        load.end()
        if self._disk is not None:
            gc.collect()  # no file of it may stay open
            self._disk.mend()
        self._read += load.read
        self._refused += load.refused
        self.breaches += load.surprises
        if load.torn:
            self.breaches.append(f"{load.torn} sampled transitions were torn")

    def _choose(self) -> Moment | None:
        """Returns a step where to die, one that had the fewest turns; None leaves it to the clock."""
        if not self._turns or self._chance.random() < 1 / 3:
            return None
        fewest = min(self._turns.values())
        step = self._chance.choice([name for name, count in self._turns.items() if count == fewest])
        occurrence = 1 if step.startswith("opening") else self._chance.choice((1, 1, 2, 3))
        return Moment(step, occurrence, self._chance.choice((0.0, self._chance.uniform(0.0001, 0.005))))

    def _count_death(self, process: BaseProcess, moment: Moment | None) -> None:
        reached = self._served.log.last()
        for name in self._served.log.names():
            self._turns.setdefault(name, 0)
        if moment is not None:
            self._turns[moment.step] += 1  # also when it was not reached again: others come first now
        within = process.exitcode == -signal.SIGALRM
        if moment is not None and (within or (moment.delay_s == 0 and moment.step in reached)):
            self._found["within a step" if within else "step"] += 1
            self._deaths[moment.step] += 1
            return
        self._found["clock"] += 1
        self._missed += moment is not None
        for step in reached:
            self._deaths[step] += 1


def judge(figures: Mapping[str, Any], *, reserve: bool) -> list[str]:
    """Returns, in words, which figures are not as promised, and whether there was a load at all.

    Args:
        figures: as the drill prints them.
        reserve: whether the disk was filled.
    """
    slowest_s, breaches = figures["recovery_s_p50_p99_max"][-1], []
    if slowest_s > _ANSWERS_S:
        breaches.append(f"a server answered {slowest_s:g} s after its start, expected {_ANSWERS_S:g} at most")
    needed = [("acknowledged", _ENOUGH), ("sampled_and_compared", _ENOUGH)]
    needed += [("refused_for_want_of_room", _ENOUGH_FULL)] * reserve
    breaches += [
        f"{name} is 0 after {figures['kills']} kills: they came without what they were to interrupt"
        for name, kills in needed
        if figures["kills"] >= kills and not figures.get(name)
    ]
    return breaches


def main(config: Config) -> int:
    """Runs the drill; returns 1 after a breach."""
    started, stop = time.monotonic(), StopSignal()
    root = config.root or Path(tempfile.mkdtemp(prefix="kill-server-", dir="."))
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as mounted:
        disk = mounted.enter_context(BreakableDisk(root / "store", _DISK_MB)) if config.power else None
        if config.reserve:
            small = mounted.enter_context(small_disk(root / "store", _SMALL_MB))
            mounted.enter_context(Filler(small, *_LEFT_MB, config.seed))
        drill = Drill(config, root, disk)
        drill.run(stop)
    figures = drill.figures()
    breaches = drill.breaches + judge(figures, reserve=config.reserve)
    if not breaches and config.root is None:
        shutil.rmtree(root)
    return finish(
        "kill_server",
        figures,
        breaches,
        seed=config.seed,
        started=started,
        to=config.json,
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
