"""The collector's loop: run an episode with the newest policy, hand it over, look for a newer policy."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import structlog

from qtopt.config import STRICT
from qtopt.errors import AccessDenied, CheckpointError, ConfigError, RemoteError, StoreError
from qtopt.interfaces import Environment, ModelSource, Policy
from qtopt.legal import check_collector
from qtopt.loops.episode import run_episode
from qtopt.loops.metrics import Clock, Every
from qtopt.loops.outbox import Outbox
from qtopt.loops.retry import Setback, Stop, never
from qtopt.types import Episode, JsonValue, ModelSnapshot

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class CollectLoopConfig:
    """How a collector runs.

    Attributes:
        episodes: episodes to collect; 0 collects until told to stop.
        refresh_every_s: least time between two looks for a newer policy, always between episodes [s].
    """

    __pydantic_config__ = STRICT

    episodes: int = 0
    refresh_every_s: float = 2.0

    def __post_init__(self) -> None:
        if self.episodes < 0 or self.refresh_every_s < 0:
            raise ConfigError(
                f"collector: episodes is {self.episodes} (expected 0 or more), "
                f"refresh_every_s is {self.refresh_every_s} (expected 0 or more)"
            )


@dataclass(frozen=True, slots=True)
class Collected:
    """One episode that a collector finished, and put on its disk at once.

    Attributes:
        episode: the episode.
        waiting: episodes on the disk when its turn to travel was over, itself and older ones.
        policy_version: version of the newest networks held; 0 before the first.
        environment_s: time in the cell: physics, rendering, motion [s].
        policy_s: time choosing actions [s].
        other_s: the rest of its time: looking for a newer policy, waiting for deliveries, packing, reporting [s].
        set_aside: episodes on the disk that could not be delivered and no longer wait.
    """

    episode: Episode
    waiting: int
    policy_version: int
    environment_s: float
    policy_s: float
    other_s: float
    set_aside: int = 0


class Follower(Generic[T]):
    """Keeps a role on the newest networks, and on the last ones while there are none that it gets and can use.

    Args:
        models: gives the networks.
        build: makes what the role needs of a snapshot.
        clock: paces attempts while nobody answers [s].
    """

    def __init__(self, models: ModelSource, build: Callable[[ModelSnapshot], T], clock: Clock = time.monotonic) -> None:
        self._models, self._build = models, build
        self._setback = Setback("no networks are fetched", clock)
        self._seen = 0
        self.current: T | None = None
        self.version = 0
        self.step = 0
        self.digest = ""

    def refresh(self) -> bool:
        """Takes newer networks if there are any; returns whether there were.

        Raises:
            AccessDenied: this role may not fetch them, and never could.
            CheckpointError: the first ones are none that can be used; later ones are left out, and reported.
        """
        if not self._setback.ready():
            return False
        try:
            snapshot = self._models.latest(self._seen)
        except (RemoteError, StoreError, CheckpointError) as error:
            self._setback.bear(error)
            return False
        self._setback.over()
        if snapshot is None:
            return False
        if snapshot.version <= self._seen:
            log.warning(
                "the server's networks count anew: it has lost those before, and these are followed from now on",
                version=snapshot.version,
                before=self._seen,
            )
        try:
            current = self._build(snapshot)
        except CheckpointError as error:
            if self.current is None:
                raise
            log.error("newer networks are left out", version=snapshot.version, kept=self.version, error=str(error))
            self._seen = snapshot.version
            return False
        self.current, self._seen = current, snapshot.version
        self.version, self.step, self.digest = snapshot.version, snapshot.step, snapshot.digest
        return True


def collect(
    environment: Environment,
    scripted: Policy,
    follower: Follower[Policy],
    outbox: Outbox,
    rng: np.random.Generator,
    *,
    config: CollectLoopConfig,
    name: str,
    facts: Mapping[str, JsonValue],
    stop: Stop = never,
    clock: Clock = time.monotonic,
) -> Iterator[Collected]:
    """Runs episodes and yields each after an attempt to deliver it.

    A finished episode is put on the disk before anything else and travels from there while the next one runs, never
    more than one at a time, so their order stays. A slow server thus slows collection down; an unreachable one does not
    stop it: the last policy is used and finished episodes wait on the disk. Nor does one that refuses what it took
    before, since a mistake in its list of tokens must not stop arms that nobody watches.

    Args:
        environment: the cell; the first scene is drawn from ``rng``.
        scripted: acts until the first networks are published.
        follower: gives the policy that acts from then on; looked after between episodes.
        outbox: takes the episodes.
        rng: the source of all chance.
        config: how long to go on.
        name: the collector's name, stored with each episode.
        facts: metadata to store with each episode, beside ``policy_sha256`` of the networks held, if there are any.
        stop: asked between actions; an unfinished episode is dropped.
        clock: measures where the time goes [s].

    Raises:
        AccessDenied: this role may not deliver, and never could.
        RobotError: the cell did not do what was asked.
        SchemaMismatch: the server takes nothing of what this process makes, and never did; or no server would, for the
            collector's name.
        StoreFull: the disk has no room for an episode, the server did not take older ones, and ``stop`` said to end.
    """
    check_collector(name)
    seed: int | None = int(rng.integers(2**31))
    finished, look = 0, Every(config.refresh_every_s, at_once=True, clock=clock)
    on_its_way: tuple[Future[None], Collected, float] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="courier") as courier:
        while not stop() and not (config.episodes and finished >= config.episodes):
            started = clock()
            if look.due():
                try:
                    follower.refresh()
                except AccessDenied as error:
                    if not outbox.bears(error):
                        raise
            ran = run_episode(
                environment,
                follower.current or scripted,
                rng,
                stop=stop,
                clock=clock,
                seed=seed,
                policy_version=follower.version,
                collector=name,
                facts={**facts, "policy_sha256": follower.digest} if follower.digest else facts,
            )
            if ran is None:
                break
            outbox.keep(ran.episode, stop)
            seed, finished = None, finished + 1
            last = None
            if on_its_way is not None:
                delivery, turn, begun = on_its_way
                delivery.result()  # the calls behind it have deadlines
                last = _over(turn, begun, started, outbox, newer=1)
            turn = Collected(
                episode=ran.episode,
                waiting=0,
                policy_version=follower.version,
                environment_s=ran.environment_s,
                policy_s=ran.policy_s,
                other_s=0.0,
            )
            on_its_way = courier.submit(outbox.flush), turn, started
            if last is not None:
                yield last
        if on_its_way is not None:
            delivery, turn, begun = on_its_way
            delivery.result()
            yield _over(turn, begun, clock(), outbox, newer=0)


def _over(turn: Collected, started: float, ended: float, outbox: Outbox, *, newer: int) -> Collected:
    """Returns a turn whose episode was delivered, or is to wait.

    Whatever of the turn's time, from ``started`` to ``ended`` [s], was spent neither in the cell nor in the policy goes
    into ``other_s``: looking for networks, waiting for the delivery before, packing, reporting. Of the episodes on the
    disk, so many are ``newer`` than its own.
    """
    other_s = ended - started - turn.environment_s - turn.policy_s
    return replace(turn, waiting=max(0, outbox.waiting - newer), other_s=other_s, set_aside=outbox.set_aside)
