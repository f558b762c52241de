"""What a store does, wherever its episodes lie: takes them in, samples transitions, holds their labels."""

import threading
import time
from abc import ABC
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import numpy as np
import structlog

from qtopt.config import STRICT
from qtopt.errors import ConfigError, CorruptEpisode, SchemaMismatch, ServerUnavailable, UnknownEpisode
from qtopt.replay.condition import StoreCondition
from qtopt.replay.frames import FrameCodec, decode_into
from qtopt.replay.index import EpisodeIndex, IndexEntries
from qtopt.replay.label_ring import LabelRing, LabelRingConfig
from qtopt.replay.rate_limiter import RateLimiterConfig, SamplesPerInsert, remaining_s
from qtopt.replay.record import EpisodeRow, Record, decode_episode, encode_episode
from qtopt.replay.retention import RetentionConfig
from qtopt.replay.sampler import SamplerConfig, draw
from qtopt.replay.schema import Rows, StoreFormat
from qtopt.replay.shelf import Damaged, Retired, Shelf
from qtopt.types import BoolArray, Episode, IntArray, LabelledBatch, Observations, Targets, Transitions, UInt8Array

log = structlog.get_logger(__name__)

_Here = Callable[[IntArray, Rows], UInt8Array]
"""Fetches the images at positions, given their rows."""
_Following = Callable[[IntArray, Rows, BoolArray], UInt8Array]
"""Fetches the images behind positions, given the rows behind them and which transitions are terminal."""


@dataclass(frozen=True)
class ReplayConfig:
    """Settings of a store.

    Attributes:
        codec: how a new store encodes frames: raw, jpeg, png, or auto (raw up to 128 px, JPEG above).
        min_transitions: transitions that must be there before the first is sampled.
        bootstrap_truncated: whether the last transition of an episode that the step limit ended is not terminal.
        sampler: how transitions are drawn.
        labels: how many labels are held, and how labelled transitions are drawn.
        limiter: the pace between labels put and labelled transitions drawn.
        segment_mb: landed frames that are sealed together into one segment [MB].
        seal_after_s: landed episodes are sealed after this time even if they are fewer [s]; 0 waits for ``segment_mb``.
        max_open_segments: segments whose frame files are held open at a time.
        max_waiting: appended episodes that may wait for the disk; more make their senders wait.
        quarantine_mb: room for episodes kept aside [MB]; what comes beyond it is refused and logged only.
        min_free_mb: room on a disk below which no episode is taken, nothing sealed, and health says not serving [MB].
        retention: how much of the past is kept.
    """

    __pydantic_config__ = STRICT

    codec: str = "auto"
    min_transitions: int = 1
    bootstrap_truncated: bool = False
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    labels: LabelRingConfig = field(default_factory=LabelRingConfig)
    limiter: RateLimiterConfig = field(default_factory=RateLimiterConfig)
    segment_mb: float = 256.0
    seal_after_s: float = 0.0
    max_open_segments: int = 512
    max_waiting: int = 256
    quarantine_mb: float = 256.0
    min_free_mb: float = 128.0
    retention: RetentionConfig = field(default_factory=RetentionConfig)

    def __post_init__(self) -> None:
        if min(self.min_transitions, self.max_open_segments, self.max_waiting) < 1 or self.segment_mb <= 0:
            raise ConfigError(
                f"replay: min_transitions {self.min_transitions}, max_open_segments {self.max_open_segments} and "
                f"max_waiting {self.max_waiting} must be 1 or more, segment_mb {self.segment_mb} more than 0"
            )
        if min(self.seal_after_s, self.quarantine_mb, self.min_free_mb) < 0:
            raise ConfigError(
                f"replay: seal_after_s {self.seal_after_s}, quarantine_mb {self.quarantine_mb} and min_free_mb "
                f"{self.min_free_mb} must not be negative"
            )
        if self.limiter.min_size > self.labels.capacity:
            raise ConfigError(
                f"replay: limiter.min_size {self.limiter.min_size} exceeds labels.capacity {self.labels.capacity}; "
                "the trainer would start only after labels were lost"
            )


class ReplayStore(ABC):
    """A store of episodes and labels; every method may be called by several threads at a time.

    It is an EpisodeSink, TransitionSource, TargetSink and BatchSource::

    with EpisodeStore(path, StoreFormat.for_images(72)) as store:
        store.append(episode)
        transitions = store.sample_transitions(64, timeout_s=1.0)
        store.put_targets(Targets(transitions.position, values, model_version))
        batch = store.sample_labelled(64, timeout_s=1.0)
    """

    _shelf: Shelf

    def __init__(self, fmt: StoreFormat, config: ReplayConfig, rng: np.random.Generator | None) -> None:
        self.format = fmt
        self.config = config
        self._rng = np.random.default_rng() if rng is None else rng
        self._index = EpisodeIndex()
        self._ring = LabelRing(config.labels)
        self._limiter = SamplesPerInsert(config.limiter)
        self._changed = threading.Condition()  # guards index, ring and rng
        self._labels_dropped = 0
        self._damage_found: set[int] = set()  # first positions of what was quarantined since the store was opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Episodes, quarantined ones included."""
        return len(self._index)

    def close(self) -> None:
        """Finishes what was begun; nothing may be called afterwards."""
        self._shelf.close()

    def append(self, episode: Episode, digest: bytes | None = None) -> bool:
        """Stores an episode durably; see ``EpisodeSink.append``. ``digest`` is its ``content_digest``, where known."""
        return self._shelf.add(encode_episode(episode, self.format, digest))

    def take(self, record: Record) -> bool:
        """Stores an episode as a store of the same format has it, without decoding it; else as ``append``."""
        return self._shelf.add(replace(record, row=replace(record.row, first_position=-1, segment=None)))

    def sample_transitions(self, count: int, timeout_s: float) -> Transitions:
        """Returns ``count`` transitions to label.

        Raises:
            ServerUnavailable: within ``timeout_s`` there were too few transitions, or labels are too far ahead of the
                trainer.
        """
        return self._draw_transitions(count, timeout_s, self._following_images)

    def sample_transition_frames(self, count: int, timeout_s: float) -> tuple[Transitions, list[bytes] | None]:
        """As ``sample_transitions``, but leaves decoding to whoever looks at the images.

        Returns:
            the transitions, without images where frames are JPEG, and the frames of what follows each; None otherwise.
        """
        if self.format.codec is not FrameCodec.JPEG:
            return self.sample_transitions(count, timeout_s), None
        frames: list[bytes] = []

        def keep(positions: IntArray, rows: Rows, terminal: BoolArray) -> UInt8Array:
            del terminal  # the frame after the last action is there as well
            frames[:] = self._shelf.frames(positions + 1, rows)
            return self._no_images()

        return self._draw_transitions(count, timeout_s, keep), frames

    def _draw_transitions(self, count: int, timeout_s: float, images: _Following) -> Transitions:
        _require_count(count)
        deadline = time.monotonic() + timeout_s
        minimum = self.config.min_transitions
        with self._changed:
            if not self._changed.wait_for(lambda: self._transitions() >= minimum, timeout_s):
                raise ServerUnavailable(
                    f"found {self._transitions()} transitions after {timeout_s:g} s, expected {minimum}; "
                    "try again when more episodes were collected"
                )
        if not self._limiter.wait_to_insert(count, remaining_s(deadline)):
            raise ServerUnavailable(f"labels are ahead of the trainer after {timeout_s:g} s; try again")
        while True:
            with self._changed:
                positions = draw(self._index, count, self.config.sampler, self._rng)
                if not len(positions):
                    raise ServerUnavailable("no sound transition is left in the store; run `qtopt data verify`")
                success, steps_left, truncated = self._index.describe(positions)
            terminal = self._terminal(steps_left, truncated)
            try:
                here, following = np.split(self._shelf.rows(np.concatenate([positions, positions + 1])), 2)
                image = images(positions, following, terminal)
                reward = np.ascontiguousarray(here["rewards"])
                return Transitions(positions, reward, terminal, _observations(image, following), steps_left, success)
            except Damaged as damage:
                self._quarantine(damage)

    def put_targets(self, targets: Targets) -> None:
        """Enters labels; those of transitions that cannot be had are dropped and counted."""
        with self._changed:
            usable = self._index.usable(targets.position)
            self._labels_dropped += int(np.count_nonzero(~usable))
            kept = Targets(targets.position[usable], targets.value[usable], targets.model_version)
            if not len(kept):
                return
            success, steps_left, truncated = self._index.describe(kept.position)
            self._ring.put(kept, success, self._terminal(steps_left, truncated), time.monotonic())
        self._limiter.count_insert(len(kept))

    def _terminal(self, steps_left: IntArray, truncated: BoolArray) -> BoolArray:
        """Returns which transitions nothing follows, bool (B,)."""
        last = steps_left == 0
        return np.asarray(last & ~truncated) if self.config.bootstrap_truncated else np.asarray(last)

    def sample_labelled(self, count: int, timeout_s: float) -> LabelledBatch:
        """Returns ``count`` labelled transitions to learn from.

        Raises:
            ServerUnavailable: within ``timeout_s`` there were too few labels.
        """
        return self._draw_labelled(count, timeout_s, self._images)

    def sample_labelled_frames(self, count: int, timeout_s: float) -> tuple[LabelledBatch, list[bytes] | None]:
        """As ``sample_labelled``, but leaves decoding to whoever looks; see ``sample_transition_frames``."""
        if self.format.codec is not FrameCodec.JPEG:
            return self.sample_labelled(count, timeout_s), None
        frames: list[bytes] = []

        def keep(positions: IntArray, rows: Rows) -> UInt8Array:
            frames[:] = self._shelf.frames(positions, rows)
            return self._no_images()

        return self._draw_labelled(count, timeout_s, keep), frames

    def _draw_labelled(self, count: int, timeout_s: float, images: _Here) -> LabelledBatch:
        _require_count(count)
        if not self._limiter.take_samples(count, timeout_s):
            raise ServerUnavailable(f"too few new labels within {timeout_s:g} s; see whether a Bellman updater runs")
        while True:
            with self._changed:
                entries = self._ring.sample(count, self._rng)
            if not len(entries):
                raise ServerUnavailable("no label of a sound transition is left; see whether a Bellman updater runs")
            positions = np.ascontiguousarray(entries["position"])
            try:
                rows = self._shelf.rows(positions)
                image = images(positions, rows)
            except Damaged as damage:
                self._quarantine(damage)
                continue
            return LabelledBatch(
                position=positions,
                observation=_observations(image, rows),
                action=np.ascontiguousarray(rows["actions"]),
                tool_pose=np.ascontiguousarray(rows["tool_pose"]),
                target=np.ascontiguousarray(entries["value"]),
                model_version=np.ascontiguousarray(entries["model_version"]),
                age_s=(time.monotonic() - entries["put_s"]).astype(np.float32),
            )

    def condition(self) -> StoreCondition:
        """Returns whether an episode appended now would be stored, and why not; health asks it."""
        return self._shelf.condition()

    def stats(self) -> dict[str, float | str]:
        """Returns figures by name, and ``limiter``: who waits for whom."""
        with self._changed:
            figures: dict[str, float | str] = {**self._index.figures(), **self._ring.figures(time.monotonic())}
            figures["labels_dropped"] = float(self._labels_dropped)
            short = self._transitions() < self.config.min_transitions
        figures.update(self._limiter.figures())
        figures.update(self._shelf.figures())
        figures["limiter"] = "updaters wait for the first episodes" if short else self._limiter.status()
        return figures

    def read_episode(self, key: str | int) -> Episode:
        """Returns the episode with a UUID, or the one with an ordinal number from 0 (negative: from the end).

        Raises:
            UnknownEpisode: there is none.
            CorruptEpisode: it is damaged.
        """
        if isinstance(key, int):
            with self._changed:
                starts = self._index.starts()
            if not -len(starts) <= key < len(starts):
                raise IndexError(f"episode {key}, expected a number below {len(starts)}")
            key = int(starts[key])
        return decode_episode(self._record(self._shelf.episode(key)), self.format)

    def episodes(self) -> Iterator[Episode]:
        """Yields the sound episodes in order of position; damaged ones are quarantined and left out."""
        for record in self.records():
            try:
                yield decode_episode(record, self.format)
            except CorruptEpisode as error:
                self._quarantine(Damaged([record.row.first_position], str(error)))

    def records(self) -> Iterator[Record]:
        """Yields the sound episodes as they are stored, in order of position; see ``episodes``."""
        with self._changed:
            starts = self._index.starts()
        for start in starts.tolist():
            try:
                row = self._shelf.episode(start)
                if row.quarantined is None:
                    yield self._record(row)
            except UnknownEpisode:  # retired since
                continue
            except CorruptEpisode as error:
                self._quarantine(Damaged([start], str(error)))

    def _record(self, row: EpisodeRow) -> Record:
        positions = np.arange(row.first_position, row.first_position + row.length + 1)
        try:
            rows = self._shelf.rows(positions)
            frames = tuple(self._shelf.frames(positions, rows))
        except Retired as gone:
            raise UnknownEpisode(f"episode {row.uuid} has just been retired") from gone
        except Damaged as damage:
            raise CorruptEpisode(f"episode {row.uuid}: {damage.reason}; run `qtopt data verify --repair`") from damage
        if not row.check(rows):
            raise CorruptEpisode(f"episode {row.uuid}: its steps do not match their checksum")
        return Record(row, rows, frames)

    def _publish(self, entries: IndexEntries) -> None:
        with self._changed:
            self._index.extend(entries)
            self._changed.notify_all()

    def _transitions(self) -> int:
        return int(self._index.group_transitions().sum())

    def _following_images(self, positions: IntArray, rows: Rows, terminal: BoolArray) -> UInt8Array:
        image = np.zeros((len(positions), self.format.height, self.format.width, 3), np.uint8)
        wanted = np.flatnonzero(~terminal)  # nobody looks at what follows a terminal transition
        self._decode(image, wanted, positions[wanted] + 1, rows[wanted])
        return image

    def _no_images(self) -> UInt8Array:
        return np.empty((0, self.format.height, self.format.width, 3), np.uint8)

    def _images(self, positions: IntArray, rows: Rows) -> UInt8Array:
        image = np.empty((len(positions), self.format.height, self.format.width, 3), np.uint8)
        self._decode(image, np.arange(len(positions)), positions, rows)
        return image

    def _decode(self, image: UInt8Array, into: IntArray, positions: IntArray, rows: Rows) -> None:
        codec = self.format.codec
        encoded = self._shelf.frames(positions, rows)
        for slot, position, frame in zip(into.tolist(), positions.tolist(), encoded, strict=True):
            try:
                decode_into(frame, codec, image[slot])
            except CorruptEpisode as error:
                raise Damaged([position], str(error)) from error

    def _quarantine(self, damage: Damaged) -> None:
        with self._changed:
            firsts = self._index.kill(np.array(damage.positions, np.int64))
            self._forget_labels()
        if isinstance(damage, Retired):  # by the process that writes the store
            return
        for first in firsts:
            log.warning("damaged episode quarantined", first_position=first, reason=damage.reason)
        self._damage_found.update(firsts)
        self._shelf.quarantine(firsts, damage.reason)

    def _forget_before(self, position: int) -> None:
        with self._changed:
            self._index.drop_before(position)
            self._forget_labels()

    def _forget_labels(self) -> None:
        """Forgets the labels of transitions that can be had no longer."""
        usable = self._index.usable(self._ring.positions)
        if not usable.all():
            self._ring.keep(usable)


def _observations(image: UInt8Array, rows: Rows) -> Observations:
    return Observations(
        image=image,
        gripper_closed=np.ascontiguousarray(rows["gripper_closed"]),
        height_to_bottom=np.ascontiguousarray(rows["height_to_bottom"]),
    )


def _require_count(count: int) -> None:
    if count < 1:
        raise SchemaMismatch(f"sample: found count {count}, expected 1 or more")
