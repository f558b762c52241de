"""Delivery of finished episodes: from the disk, where each is kept first, to a server that may be away."""

import threading
import time
from typing import Protocol

import structlog

from qtopt.errors import AccessDenied, NotAuthenticated, RemoteError, SchemaMismatch, StoreError, StoreFull
from qtopt.interfaces import EpisodeSink
from qtopt.loops.metrics import Clock
from qtopt.loops.retry import Backoff, Stop, never
from qtopt.types import Episode

log = structlog.get_logger(__name__)
_LOOK_S = 0.2


class EpisodeSpool(Protocol):
    """Keeps episodes on this machine's disk; ``robot_bridge.spool.Spool`` is one. Used by two threads at a time."""

    def put(self, episode: Episode) -> None:
        """Keeps an episode durably; raises StoreFull where there is no room.

        One that no server would take is set aside and reported; that raises SchemaMismatch.
        """
        ...

    def deliver(self, sink: EpisodeSink, limit: int) -> int:
        """Hands over at most ``limit`` episodes, oldest first, forgetting each once acknowledged; returns how many."""
        ...

    def __len__(self) -> int:
        """Episodes kept."""
        ...

    @property
    def set_aside(self) -> int:
        """Episodes that could not be delivered and were set aside on the disk."""
        ...


class Outbox:
    """Keeps every finished episode on the disk before anything else, and delivers from there, oldest first.

    Whatever kills this process, and whenever, an episode that ``keep`` has returned for arrives.

    Args:
        sink: takes the episodes.
        spool: keeps them until then.
        clock: paces attempts while nobody answers [s].
    """

    def __init__(self, sink: EpisodeSink, spool: EpisodeSpool, clock: Clock = time.monotonic) -> None:
        self._sink, self._spool, self._clock = sink, spool, clock
        self._backoff = Backoff(clock=clock)
        self._delivering = threading.Lock()
        self._was_let_in = False
        self._behind_since_s: float | None = None  # when the first episode of those that wait was refused

    @property
    def waiting(self) -> int:
        """Episodes on the disk."""
        return len(self._spool)

    @property
    def set_aside(self) -> int:
        """Episodes set aside on the disk, which are not delivered by themselves."""
        return self._spool.set_aside

    def keep(self, episode: Episode, stop: Stop = never) -> None:
        """Puts an episode on the disk; while that has no room, waits for the server to take older ones.

        One that no server would take is set aside there, which the spool reports: it must not stop its robot.

        Raises:
            StoreFull: there was no room until ``stop`` told to end.
            EpisodeConflict: another episode of this UUID waits.
        """
        warned = False
        with structlog.contextvars.bound_contextvars(
            robot=episode.collector, episode=episode.uuid, policy_version=episode.policy_version
        ):
            while not self._kept(episode, stop, quiet=warned):
                warned = True
                self.flush()
                time.sleep(_LOOK_S)
            log.debug("episode kept", outcome=episode.outcome.name.lower(), steps=len(episode))

    def _kept(self, episode: Episode, stop: Stop, *, quiet: bool) -> bool:
        try:
            self._spool.put(episode)
        except StoreFull as error:
            if stop():
                raise
            if not quiet:
                log.warning("collection waits until there is room for finished episodes", error=str(error))
            return False
        except SchemaMismatch as error:
            log.error("a finished episode is set aside: no server would take it", error=str(error))
        return True

    def bears(self, error: AccessDenied) -> bool:
        """Whether collection goes on although the server refuses: it was good before, so the mistake is the server's.

        A token was good when the connection was made. A role was when an episode was delivered.
        """
        return self._was_let_in or isinstance(error, NotAuthenticated)

    def flush(self, limit: int = 20) -> None:
        """Delivers at most ``limit`` episodes, oldest first, if it is time to try.

        Whatever the server answers, its disk's faults and its own included, makes them wait, in order; the next attempt
        is later each time. The spool sets aside and reports a single episode that cannot be delivered.

        Raises:
            AccessDenied: this role may not deliver, and never could.
            SchemaMismatch: the server takes nothing of what this process makes, and never did.
        """
        with self._delivering:
            if not self.waiting or not self._backoff.ready():
                return
            try:
                delivered = self._spool.deliver(self._sink, limit)
            except (RemoteError, StoreError) as error:
                if isinstance(error, AccessDenied) and not self.bears(error):
                    raise
                self._backoff.failed()
                if self._behind_since_s is None:
                    self._behind_since_s = self._clock()
                log.warning("episodes wait on the disk", waiting=self.waiting, error=str(error))
                return
            self._backoff.succeeded()
            self._was_let_in |= delivered > 0
            if self._behind_since_s is not None and (delivered < limit or not self.waiting):
                waited_s = round(self._clock() - self._behind_since_s, 1)
                log.info("the episodes that waited on the disk are delivered", waited_s=waited_s)
                self._behind_since_s = None
