"""A role's figures: summed up in one place, from which the live table, TensorBoard and Prometheus have them."""

import threading
import time
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from qtopt.apps.room import disk_figures
from qtopt.errors import RemoteError, StoreError
from qtopt.interfaces import Reporter
from qtopt.loops.metrics import Every
from qtopt.loops.retry import Backoff

Turn = TypeVar("Turn")
Turn_contra = TypeVar("Turn_contra", contravariant=True)


class Figures(Protocol[Turn_contra]):
    """Sums up what a loop yields."""

    def add(self, turn: Turn_contra) -> None:
        """Takes what one turn of the loop did."""
        ...

    def figures(self) -> dict[str, float]:
        """Returns the newest figures."""
        ...


class Reporting(Generic[Turn]):
    """Subscribes to a loop: ``take`` each turn, and the figures go out every two seconds while somebody answers.

    Args:
        reporter: takes the figures.
        role: ``trainer``, ``collector/sim-0``, ...
        figures: sums them up.
        disk: where the role keeps its files; its free space is a figure too.
        every_s: time between two reports [s].

    Attributes:
        role: as given.
    """

    def __init__(
        self, reporter: Reporter, role: str, figures: Figures[Turn], *, disk: Path | None = None, every_s: float = 2.0
    ) -> None:
        self.role = role
        self._reporter, self._figures, self._disk = reporter, figures, disk
        self._every = Every(every_s, at_once=True)
        self._backoff = Backoff()
        self._lock = threading.Lock()
        self._turned_s = time.monotonic()

    def take(self, turn: Turn) -> None:
        """Takes what one turn of the loop did."""
        with self._lock:
            self._figures.add(turn)
            self._turned_s = time.monotonic()
        if not (self._every.due() and self._backoff.ready()):
            return
        try:
            self._reporter.report(self.role, self.figures())
        except (RemoteError, StoreError):  # whoever is refused for good learns it by what the role is there for
            self._backoff.failed()
        else:
            self._backoff.succeeded()

    def figures(self) -> dict[str, float]:
        """Returns the newest figures; may be called by other threads."""
        disk = {} if self._disk is None else disk_figures(self._disk)
        with self._lock:
            return self._figures.figures() | disk | {"turn_age_s": time.monotonic() - self._turned_s}
