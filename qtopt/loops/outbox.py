"""Delivery of finished episodes: at once when the server answers, from the disk when it comes back."""

import time
from collections.abc import Callable
from typing import Protocol

import structlog

from qtopt.errors import EpisodeConflict, QtOptError, ServerUnavailable, StoreFull
from qtopt.interfaces import EpisodeSink
from qtopt.loops.metrics import Clock
from qtopt.loops.retry import Backoff
from qtopt.types import Episode

log = structlog.get_logger(__name__)


class EpisodeSpool(Protocol):
    """Keeps episodes on this machine's disk; ``robot_bridge.spool.Spool`` is one."""

    def put(self, episode: Episode) -> None:
        """Keeps an episode durably."""
        ...

    def deliver(self, sink: EpisodeSink, limit: int) -> int:
        """Hands over at most ``limit`` episodes, oldest first, forgetting each once acknowledged; returns how many."""
        ...

    def __len__(self) -> int:
        """Episodes kept."""
        ...


class Outbox:
    """Delivers episodes to a sink and keeps them on the disk while it does not answer.

    Args:
        sink: takes the episodes.
        spool: keeps them meanwhile.
        clock: paces attempts while nobody answers [s].
    """

    def __init__(self, sink: EpisodeSink, spool: EpisodeSpool, clock: Clock = time.monotonic) -> None:
        self._sink, self._spool = sink, spool
        self._backoff = Backoff(clock=clock)

    @property
    def waiting(self) -> int:
        """Episodes on the disk."""
        return len(self._spool)

    def deliver(self, episode: Episode) -> bool:
        """Delivers an episode, older ones first; returns False when it was put on the disk instead.

        One that the server refuses, because it has another episode of this UUID, is left to the spool, which sets it
        aside and reports it.

        Raises:
            SchemaMismatch: the server keeps another kind of episodes.
            StoreFull: this machine's disk has no room either.
        """
        with structlog.contextvars.bound_contextvars(
            robot=episode.collector, episode=episode.uuid, policy_version=episode.policy_version
        ):
            delivered = self._deliver(episode)
            log.debug("episode", delivered=delivered, outcome=episode.outcome.name.lower(), steps=len(episode))
        return delivered

    def _deliver(self, episode: Episode) -> bool:
        refused = False
        if not self.waiting:
            try:
                if self._attempt(lambda: self._sink.append(episode)):
                    return True
            except EpisodeConflict as error:
                log.warning("episode refused", error=str(error))
                refused = True
            except QtOptError:
                self._spool.put(episode)  # whoever mends the disagreement finds it there: grasps are dear
                raise
        self._spool.put(episode)
        self.flush()
        return not (refused or self.waiting)

    def flush(self, limit: int = 20) -> None:
        """Delivers at most ``limit`` episodes that wait on the disk, oldest first, if it is time to try."""
        if self.waiting:
            self._attempt(lambda: self._spool.deliver(self._sink, limit))

    def _attempt(self, deliver: Callable[[], object]) -> bool:
        if not self._backoff.ready():
            return False
        try:
            deliver()
        except (ServerUnavailable, StoreFull) as error:
            self._backoff.failed()
            log.warning("episodes wait on the disk", waiting=self.waiting, error=str(error))
            return False
        self._backoff.succeeded()
        return True
