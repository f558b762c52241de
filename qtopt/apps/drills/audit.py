"""What was sent to a store, and whether all of it is there that has to be."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from qtopt.apps.drills.episodes import numbered_episode
from qtopt.digest import content_digest
from qtopt.errors import StoreError
from qtopt.replay import EpisodeStore
from qtopt.replay.verify import VerifyReport
from qtopt.types import JsonValue


class Ledger:
    """Which episodes each sender has had acknowledged: one at a time, in order, the same again until it is.

    Args:
        senders: how many there are.
    """

    def __init__(self, senders: int) -> None:
        self._lock = threading.Lock()
        self._next = [0] * senders  # all below are acknowledged
        self._begun = [0] * senders
        self._counts: Counter[str] = Counter()

    def begin(self, sender: int) -> int:
        """Returns the number of the sender's episode to send now."""
        with self._lock:
            self._counts["sent_again"] += self._begun[sender] > self._next[sender]
            self._begun[sender] = self._next[sender] + 1
            return self._next[sender]

    def acknowledged(self, sender: int, *, is_new: bool) -> None:
        """Notes that the episode begun last was acknowledged."""
        with self._lock:
            self._counts["acknowledged"] += 1
            self._counts["stored_before_a_kill_unacknowledged"] += not is_new
            self._next[sender] += 1

    def state(self) -> tuple[list[int], list[int]]:
        """Returns for each sender how many are acknowledged and how many were begun."""
        with self._lock:
            return list(self._next), list(self._begun)

    def figures(self) -> dict[str, JsonValue]:
        """Returns counts by name."""
        with self._lock:
            return {**self._counts}


def all_damage(report: VerifyReport, *, cut_off: bool = False) -> list[str]:
    """Returns in words all that a store says is damaged, also what it knew of before.

    With ``cut_off`` the disk was taken away in the middle of writing: pieces in the landing log that no episode is made
    of are no damage then. They were never acknowledged; an acknowledged one that became such a piece is missing.
    """
    bad = [f"damaged: {each.uuid}: {each.reason}" for each in (*report.damaged, *report.quarantined)]
    bad += [f"quarantined, though sound: the episode at position {first}" for first in report.healed]
    bad += [f"{report.replaced} damaged episodes were stored again"] * bool(report.replaced)
    bad += [report.unexplained] * bool(report.unexplained)
    return [*bad, *report.notes, *report.explained, *(() if cut_off else report.left_out)]


class Audit:
    """Compares a store with a ledger, while a server has the store open and nobody appends.

    Retention takes the oldest away: of each sender the first ones may be missing, and as many as the catalogue says
    that it gave up. What is quarantined is not served, and counts as missing.

    Args:
        store: directory of the store.
        ledger: of what was sent.
        image_px, steps: of the episodes, as in ``numbered_episode``.
        cut_off: whether its disk may be taken away in the middle of writing; see ``all_damage``.
    """

    def __init__(
        self, store: Path, ledger: Ledger, image_px: int, steps: int | None = None, *, cut_off: bool = False
    ) -> None:
        self._store, self._ledger, self._image_px, self._steps = store, ledger, image_px, steps
        self._cut_off = cut_off

    def check(self) -> list[str]:
        """Reads everything; returns what is wrong."""
        try:
            with EpisodeStore(self._store, read_only=True) as store:
                wrong = list(self._compare(store))
                report = store.verify()
        except StoreError as error:
            return [f"the store cannot be opened: {error}"]
        return wrong + all_damage(report, cut_off=self._cut_off)

    def _compare(self, store: EpisodeStore) -> Iterator[str]:
        acknowledged, begun = self._ledger.state()
        present, retired = store.catalogued()
        numbers: list[list[int]] = [[] for _ in acknowledged]
        for row in present:
            if row.quarantined is not None:
                continue
            sender, number = int(row.uuid[:8], 16), int(row.uuid[8:], 16)
            numbers[sender].append(number)
            if number >= begun[sender]:
                yield f"episode {number} of sender {sender} was never sent"
            elif row.digest != content_digest(numbered_episode(sender, number, self._image_px, self._steps)):
                yield f"episode {number} of sender {sender} is not what was sent"
        missing = 0
        for sender, found in enumerate(numbers):
            first = found[0] if found else acknowledged[sender]
            stop = max(acknowledged[sender], first + len(found))
            missing += first
            if found != list(range(first, stop)):
                yield f"sender {sender}: found {found[:5]}...{found[-5:]}, expected {first} to {stop - 1}, each once"
            if stop > begun[sender]:
                yield f"sender {sender}: {stop} episodes, only {begun[sender]} were begun"
        if missing != retired:
            yield f"{missing} episodes are missing, {retired} were retired"
