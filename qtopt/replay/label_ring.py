"""The train buffer: targets by reference to their transitions, one per transition, the oldest place reused."""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qtopt.config import STRICT
from qtopt.errors import CheckpointError, ConfigError
from qtopt.replay.balance import balanced
from qtopt.replay.growable import Growable
from qtopt.types import BoolArray, IntArray, Targets

_ENTRY = np.dtype([("position", "i8"), ("value", "f4"), ("kind", "u1"), ("model_version", "i8"), ("put_s", "f8")])
_Entries = np.ndarray[tuple[int], np.dtype[np.void]]
SUCCESS, TERMINAL = 1, 2
_KINDS = 4
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, RuntimeError, MemoryError, OverflowError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
"""What numpy and zipfile raise for damaged files."""
_SAVED = ("position", "value", "kind", "model_version")


@dataclass(frozen=True)
class LabelRingConfig:
    """Settings of the label ring.

    Attributes:
        capacity: labels held at most.
        success_share: share of samples from successful episodes; None leaves it as it is in the ring.
        terminal_share: share of samples that end their episode; None leaves it as it is in the ring.
    """

    __pydantic_config__ = STRICT

    capacity: int = 100_000
    success_share: float | None = None
    terminal_share: float | None = None

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ConfigError(f"label ring capacity is {self.capacity}, expected 1 or more labels")
        for name in ("success_share", "terminal_share"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"label ring {name} is {share}, expected 0 to 1 or nothing")


@dataclass(frozen=True, slots=True)
class SavedLabels:
    """Labels on their way to a file: columns by name, oldest first, and the age of each [s]."""

    columns: Mapping[str, npt.NDArray[Any]]
    age_s: npt.NDArray[np.float64]

    def write(self, path: Path) -> None:
        """Writes the labels to ``path`` (.npz), whole or not at all."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, allow_pickle=False, age_s=self.age_s, **self.columns)
        temporary.replace(path)


class LabelRing:
    """Labels by reference. Not safe for several threads: its owner holds a lock.

    Times are seconds on whatever monotonic clock the caller uses.
    """

    def __init__(self, config: LabelRingConfig) -> None:
        self.config = config
        self._entries = Growable(_ENTRY)
        self._slots: dict[int, int] = {}
        self._members = [Growable(np.int64) for _ in range(_KINDS)]
        self._place = Growable(np.int64)  # where in its kind's list of members each slot stands
        self._oldest = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, targets: Targets, success: BoolArray, terminal: BoolArray, now_s: float) -> None:
        """Enters labels; one for a transition that has a label replaces it.

        Args:
            targets: B labels.
            success: bool (B,), whether each label's transition is of a successful episode.
            terminal: bool (B,), whether it is the last of its episode.
            now_s: the time.
        """
        entries = np.zeros(len(targets), _ENTRY)
        entries["position"], entries["value"] = targets.position, targets.value
        entries["kind"] = SUCCESS * success.astype(np.uint8) + TERMINAL * terminal.astype(np.uint8)
        entries["model_version"], entries["put_s"] = targets.model_version, now_s
        self._enter(entries)

    def _enter(self, entries: _Entries) -> None:
        """Enters labels, the later of one transition or place over the earlier: found one by one, written together."""
        before = self._entries.view["position"]
        positions: list[int] = entries["position"].tolist()
        size, written = len(before), dict[int, int]()
        for number, position in enumerate(positions):
            slot = self._slots.get(position)
            if slot is None:
                if size < self.config.capacity:
                    slot, size = size, size + 1
                else:
                    slot = self._oldest
                    self._oldest = (slot + 1) % self.config.capacity
                    del self._slots[positions[written[slot]] if slot in written else int(before[slot])]
                self._slots[position] = slot
            written[slot] = number
        slots = np.fromiter(written, np.int64, len(written))
        self._leave(slots[slots < len(before)])
        for column in (self._entries, self._place):
            column.extend(np.zeros(size - len(before), column.view.dtype))
        self._entries.view[slots] = entries[np.fromiter(written.values(), np.int64, len(written))]
        self._join(slots)

    def _join(self, slots: IntArray) -> None:
        kinds = self._entries.view["kind"][slots]
        for kind, members in enumerate(self._members):
            joining = slots[kinds == kind]
            self._place.view[joining] = len(members) + np.arange(len(joining))
            members.extend(joining)

    def _leave(self, slots: IntArray) -> None:
        """Takes slots off their kinds' lists; the last of a list fill the holes."""
        kinds = self._entries.view["kind"][slots]
        for kind, members in enumerate(self._members):
            places = self._place.view[slots[kinds == kind]]
            left = len(members) - len(places)
            stays = np.ones(len(places), bool)
            stays[places[places >= left] - left] = False
            moved, holes = members.view[left:][stays], places[places < left]
            members.view[holes] = moved
            self._place.view[moved] = holes
            members.shrink(len(places))

    def keep(self, usable: BoolArray) -> None:
        """Forgets the labels where ``usable``, bool (len(self),) in the order of ``positions``, is False."""
        kept = self._entries.view[usable].copy()
        oldest = int(np.count_nonzero(usable[: self._oldest]))
        self._fill(np.roll(kept, -oldest))

    def _fill(self, entries: _Entries) -> None:
        """Replaces all entries, given oldest first."""
        fresh = LabelRing(self.config)
        fresh._enter(entries[-self.config.capacity :])
        self.__dict__.update(fresh.__dict__)

    def sample(self, count: int, rng: np.random.Generator) -> _Entries:
        """Draws ``count`` labels with replacement, a structured array; none when the ring is empty.

        Its fields are position, value, kind, model_version and put_s.
        """
        sizes = np.array([len(members) for members in self._members])
        shares = balanced(sizes, self.config.success_share, self.config.terminal_share)
        if not shares.any():
            return np.empty(0, _ENTRY)
        kinds = rng.choice(_KINDS, count, p=shares)
        slots = np.empty(count, np.int64)
        for kind, members in enumerate(self._members):
            chosen = kinds == kind
            wanted = int(np.count_nonzero(chosen))
            if wanted:
                slots[chosen] = members.view[rng.integers(0, len(members), wanted)]
        return self._entries.view[slots]

    @property
    def positions(self) -> IntArray:
        """The transitions that have a label, int64 (len(self),); a copy."""
        return self._entries.view["position"].copy()

    def figures(self, now_s: float) -> dict[str, float]:
        """Returns fill, label age and the model versions behind the labels; ages and versions are 0 when empty."""
        entries = self._entries.view
        ages = now_s - entries["put_s"] if len(entries) else np.zeros(1)
        versions = entries["model_version"] if len(entries) else np.zeros(1, np.int64)
        median, late = np.percentile(ages, [50, 95])
        return {
            "labels": float(len(entries)),
            "labels_capacity": float(self.config.capacity),
            "label_age_p50_s": float(median),
            "label_age_p95_s": float(late),
            "label_version_min": float(versions.min()),
            "label_version_max": float(versions.max()),
        }

    def snapshot(self, now_s: float) -> "SavedLabels":
        """Returns the labels with their ages, to be written while this ring goes on."""
        entries = np.roll(self._entries.view, -self._oldest)
        return SavedLabels({name: entries[name] for name in _SAVED}, now_s - entries["put_s"])

    def save(self, path: Path, now_s: float) -> None:
        """Writes the labels with their ages to ``path`` (.npz), whole or not at all."""
        self.snapshot(now_s).write(path)

    def load(self, path: Path, now_s: float) -> None:
        """Replaces the labels by those in ``path``, which go on ageing from where they were.

        Raises:
            CheckpointError: the file is missing or not a saved ring.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
                entries = np.zeros(len(saved["position"]), _ENTRY)
                for name in _SAVED:
                    entries[name] = saved[name]
                entries["put_s"] = now_s - saved["age_s"]
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{path}: {error}; expected a saved label ring, remove it to start without labels"
            ) from error
        if (entries["kind"] >= _KINDS).any():
            raise CheckpointError(f"{path}: labels of an unknown kind; remove it to start without labels")
        self._fill(entries)
