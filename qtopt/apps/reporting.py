"""A role's figures on their way to the live table."""

from typing import Generic, Protocol, TypeVar

from qtopt.errors import ServerUnavailable
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
    """Subscribes to a loop: ``take`` each turn, and the figures go out every two seconds while somebody answers."""

    def __init__(self, reporter: Reporter, role: str, figures: Figures[Turn], every_s: float = 2.0) -> None:
        self._reporter, self._role, self._figures = reporter, role, figures
        self._every = Every(every_s, at_once=True)
        self._backoff = Backoff()

    def take(self, turn: Turn) -> None:
        """Takes what one turn of the loop did."""
        self._figures.add(turn)
        if not (self._every.due() and self._backoff.ready()):
            return
        try:
            self._reporter.report(self._role, self._figures.figures())
        except ServerUnavailable:
            self._backoff.failed()
        else:
            self._backoff.succeeded()
