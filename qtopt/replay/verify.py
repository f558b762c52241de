"""Reads everything in a store and says what does not match its checksum."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from qtopt import specs
from qtopt.digest import content_digest
from qtopt.errors import CorruptEpisode, SchemaMismatch
from qtopt.replay.catalogue import SegmentRow
from qtopt.replay.disk import DiskShelf
from qtopt.replay.frames import FrameCodec
from qtopt.replay.record import REPLACED, UNTOLD, EpisodeRow, Record, decode_episode
from qtopt.replay.schema import FORMAT_NAME, STEP_DTYPE, StoreFormat, dump_json, facts_json
from qtopt.replay.segment_files import COLUMN_NAMES, UNREADABLE, check_shard, column_is_sound, never_had
from qtopt.replay.shelf import Damaged, Retired
from qtopt.types import Episode


@dataclass(frozen=True, slots=True)
class DamagedEpisode:
    """An episode that cannot be served, and why."""

    uuid: str
    first_position: int
    reason: str


@dataclass
class VerifyReport:
    """What was read and what was found.

    Attributes:
        episodes, frames, segments: how many were read.
        damaged: episodes that cannot be served, and that nobody knew of when the store was opened.
        quarantined: those that were quarantined before, and are damaged still.
        replaced: how many damaged ones were stored again since.
        healed: first positions of quarantined episodes that are sound.
        explained: damaged files of segments with such episodes.
        left_out: in words, what of the landing log no episode is made of, and where it is kept; None: nowhere else.
        unexplained: in words, what segments the catalogue knows nothing of; empty for none.
        notes: other damage: what other readers would stumble over, but not this store.
    """

    episodes: int = 0
    frames: int = 0
    segments: int = 0
    damaged: list[DamagedEpisode] = field(default_factory=list)
    quarantined: list[DamagedEpisode] = field(default_factory=list)
    replaced: int = 0
    healed: list[int] = field(default_factory=list)
    explained: list[str] = field(default_factory=list)
    left_out: dict[str, Path | None] = field(default_factory=dict)
    unexplained: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return self.nothing_new and not (self.quarantined or self.replaced or self.explained or self.left_out)

    @property
    def nothing_new(self) -> bool:
        """Whether nothing is damaged beyond what was quarantined before."""
        return not (self.damaged or self.notes or self.unexplained or None in self.left_out.values())


def verify(shelf: DiskShelf, fmt: StoreFormat, just_found: Collection[int] = ()) -> VerifyReport:
    """Reads every byte of a store, up to what was there when it began, and checks it.

    Args:
        shelf: of the store.
        fmt: of the store.
        just_found: first positions of episodes that were quarantined since it was opened.
    """
    report = VerifyReport(unexplained=shelf.unexplained, left_out=shelf.left_out())
    end = shelf.end
    hurt = _check_episodes(shelf, fmt, just_found, end, report)
    for segment in shelf.segments():
        if segment.first_position + segment.rows > end:
            continue  # sealed meanwhile, with episodes that nobody looked at
        tables, arrays = _check_segment(shelf.segment_path(segment), segment)
        if (tables or arrays) and not shelf.catalogue.has_segment(segment.number):
            continue  # retired meanwhile
        report.segments += 1
        count = hurt[segment.number]
        (report.explained if count == segment.episodes else report.notes).extend(tables)
        (report.explained if count else report.notes).extend(arrays)
    return report


def _check_episodes(
    shelf: DiskShelf, fmt: StoreFormat, just_found: Collection[int], end: int, report: VerifyReport
) -> Counter[int | None]:
    """Adds what there is to say of episodes before ``end`` to ``report``; returns how many each segment has damaged."""
    hurt: Counter[int | None] = Counter()
    for batch in shelf.catalogue.batches(stop=end):
        for row in batch:
            try:
                reason = row.quarantined if row.quarantined in (REPLACED, UNTOLD) else _check_episode(shelf, fmt, row)
            except Retired:
                continue
            report.episodes += 1
            report.frames += row.length + 1
            known = row.quarantined is not None and row.first_position not in just_found
            if reason == REPLACED:
                report.replaced += 1
            elif reason is not None:
                found = report.quarantined if known else report.damaged
                found.append(DamagedEpisode(row.uuid, row.first_position, row.quarantined or reason))
            elif row.quarantined is not None:
                report.healed.append(row.first_position)
            hurt[row.segment] += reason is not None
    return hurt


def _check_episode(shelf: DiskShelf, fmt: StoreFormat, row: EpisodeRow) -> str | None:
    """Returns what is wrong with an episode, or None."""
    positions = np.arange(row.first_position, row.first_position + row.length + 1)
    try:
        rows = shelf.rows(positions)
        episode = decode_episode(Record(row, rows, tuple(shelf.frames(positions, rows))), fmt)
        sound = fmt.codec is FrameCodec.JPEG or is_content(row, episode)
    except Retired:
        raise
    except (Damaged, CorruptEpisode) as damage:
        return str(damage)
    except (RecursionError, SchemaMismatch):
        return None  # its checksums match; metadata as deep as earlier releases took them cannot be compared here
    return None if sound else "the content does not match the digest"


def is_content(row: EpisodeRow, episode: Episode) -> bool:
    """Whether an episode's row has the digest of this content, as stores of any format have it."""
    return row.digest == content_digest(episode) or row.digest == former_digest(episode)


def former_digest(episode: Episode) -> bytes:
    """Returns the digest that episodes had in stores of format 1 and 2."""
    sha = hashlib.sha256(f"{FORMAT_NAME} {specs.SCHEMA_VERSION}\n".encode())
    facts = facts_json(episode, bounded=False)
    head = [episode.uuid, int(episode.end), int(episode.outcome), int(episode.policy_version), facts]
    sha.update(dump_json(head).encode())
    for spec in specs.EPISODE_SPECS:
        if spec.name == specs.IS_INTERVENTION and not episode.is_intervention.any():
            continue
        array = np.ascontiguousarray(getattr(episode, spec.name), np.dtype(spec.dtype).newbyteorder("<"))
        sha.update(f"\n{spec.name}{list(array.shape)}\n".encode())
        sha.update(array.data)
    return sha.digest()


def _check_segment(directory: Path, row: SegmentRow) -> tuple[list[str], list[str]]:
    """Returns what other readers of a segment would stumble over: in its tables, and in its steps and frames."""
    tables: list[str] = []
    arrays: list[str] = []
    try:
        described = json.loads((directory / "zarr.json").read_text())["attributes"]["segment"]
    except UNREADABLE as error:
        tables.append(f"{directory / 'zarr.json'}: {error}")
    else:
        if described != asdict(row):
            tables.append(f"{directory / 'zarr.json'}: found {described}, expected {asdict(row)}")
    for name in COLUMN_NAMES:
        notes = arrays if name in (STEP_DTYPE.names or ()) else tables
        try:
            sound = never_had(directory, name) or column_is_sound(directory, name)
        except OSError as error:
            notes.append(f"{directory / name}: {error}")
        else:
            if not sound:
                notes.append(f"{directory / name}: does not match its checksum")
    try:
        damaged = check_shard(directory, row)
    except (OSError, CorruptEpisode) as error:
        tables.append(str(error))
    else:
        arrays += [
            f"{directory}: bytes {start} to {stop} of frames do not match their checksum" for start, stop in damaged
        ]
    return tables, arrays
