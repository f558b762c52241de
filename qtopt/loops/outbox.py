"""Delivery of finished episodes: at once when the server answers, from the disk when it comes back."""

import time
from typing import Protocol

from qtopt.errors import ServerUnavailable
from qtopt.interfaces import EpisodeSink
from qtopt.loops.metrics import Clock
from qtopt.loops.retry import Backoff
from qtopt.types import Episode


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
