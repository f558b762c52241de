"""The newest figures of every role, held in memory for the live table."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from qtopt.errors import SchemaMismatch

MAX_ROLES: Final = 256
MAX_ENTRIES: Final = 512
"""Figures and texts of one role at most."""
MAX_TEXT: Final = 4096
"""Characters of a name or a text at most."""
MAX_REPORT: Final = 65536
"""Characters of all names and texts of one role at most: what all roles together hold stays small."""


@dataclass(frozen=True, slots=True)
class RoleFigures:
    """What a role reported last, and how many seconds ago."""

    figures: Mapping[str, float]
    texts: Mapping[str, str]
    age_s: float


class FigureBoard:
    """Takes reports (a Reporter) and gives them all; used by any number of threads.

    Beyond ``MAX_ROLES`` the role that has been silent the longest is dropped.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._roles: dict[str, tuple[dict[str, float], dict[str, str], float]] = {}

    def report(self, role: str, figures: Mapping[str, float], texts: Mapping[str, str] | None = None) -> None:
        """Replaces what ``role`` reported; raises SchemaMismatch for more than a role may hold."""
        words = dict(texts or {})
        if not role or len(figures) + len(words) > MAX_ENTRIES:
            count = len(figures) + len(words)
            raise SchemaMismatch(f"report of {role!r}: found {count} entries, expected a name and up to {MAX_ENTRIES}")
        lengths = [len(text) for text in (role, *figures, *words, *words.values())]
        if max(lengths) > MAX_TEXT or sum(lengths) > MAX_REPORT:
            raise SchemaMismatch(
                f"report: found a text of {max(lengths)} characters and {sum(lengths)} in all, expected up to "
                f"{MAX_TEXT} and {MAX_REPORT}"
            )
        with self._lock:
            self._roles.pop(role, None)
            self._roles[role] = (dict(figures), words, self._clock())
            while len(self._roles) > MAX_ROLES:
                self._roles.pop(next(iter(self._roles)))

    def figures(self) -> dict[str, RoleFigures]:
        """Returns the newest report of every role, by role."""
        with self._lock:
            now = self._clock()
            return {
                role: RoleFigures(dict(figures), dict(texts), now - at)
                for role, (figures, texts, at) in sorted(self._roles.items())
            }
