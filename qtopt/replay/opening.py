"""What a store reads when it is opened: the episode table and the steps of all that is kept."""

import shutil
from collections.abc import Callable, Collection, Sequence, Set
from pathlib import Path

import numpy as np
import structlog

from qtopt.durable import flush
from qtopt.errors import CorruptEpisode, StoreError
from qtopt.replay.catalogue import Catalogue, SegmentRow
from qtopt.replay.checksum import crc32c
from qtopt.replay.index import IndexEntries
from qtopt.replay.quarantine import Quarantine
from qtopt.replay.record import EpisodeRow
from qtopt.replay.schema import STEP_DTYPE, Rows, rows_from_bytes
from qtopt.replay.segment_files import (
    UNREADABLE,
    described_columns,
    never_had,
    offsets,
    read_column,
    read_episode_column,
    read_tables,
    segment_name,
)
from qtopt.replay.segments import SegmentFrames
from qtopt.types import IntArray

IsWhole = Callable[[EpisodeRow], bool]
"""Whether the landing log has an episode, and all of its frames match their checksums."""

log = structlog.get_logger(__name__)


def sealed_entries(catalogue: Catalogue, directory: Path, segment: SegmentRow, quarantined: IntArray) -> IndexEntries:
    """Returns what the index has to know of a segment's episodes.

    It comes from the segment's own columns, a hundred times faster than from the rows of the catalogue; from those
    where a column is damaged or lost.

    Args:
        catalogue: of the store.
        directory: of the segment.
        segment: which one.
        quarantined: first positions of the store's damaged episodes, int64.
    """
    try:
        first, length, end, outcome, offline = (
            read_episode_column(directory, f"episode_{name}", segment)
            for name in ("first_row", "length", "end", "outcome", "offline")
        )
    except (OSError, ValueError, CorruptEpisode) as error:
        log.warning("a segment's episode table cannot be used; the catalogue has it too", error=str(error))
    else:
        if np.array_equal(np.append(first, segment.rows), np.append(0, first + length + 1)):
            positions = first + segment.first_position
            return IndexEntries(positions, length, end, outcome, offline, np.isin(positions, quarantined))
        log.warning("a segment's episode table has gaps; the catalogue's is used", path=str(directory))
    return IndexEntries.of(catalogue.episodes(segment.first_position, segment.first_position + segment.rows))


def sealed_rows(catalogue: Catalogue, directory: Path, segment: SegmentRow) -> tuple[Rows, IntArray, list[int]]:
    """Returns a segment's rows, where its frames begin, and the first positions of episodes whose rows are damaged.

    Args:
        catalogue: of the store.
        directory: of the segment.
        segment: which one.

    Raises:
        OSError, ValueError: a column is missing, cannot be read or is too short.
    """
    rows = np.zeros(segment.rows, STEP_DTYPE)
    sound = True
    for name in STEP_DTYPE.names or ():
        dtype = STEP_DTYPE[name]
        if never_had(directory, name):
            sound &= described_columns(directory) is not None  # else it may be lost: the episodes' checksums tell
        else:
            rows[name], matches = read_column(directory, name, dtype.base, (segment.rows, *dtype.shape))
            sound &= matches
    begin, matches = read_column(directory, "frame_offset", "<i8", (segment.rows,))
    frame_offsets = np.array(begin) if matches else offsets(rows["frame_bytes"])
    return rows, frame_offsets, [] if sound else _damaged_episodes(catalogue, directory, segment, rows)


def _damaged_episodes(catalogue: Catalogue, directory: Path, segment: SegmentRow, rows: Rows) -> list[int]:
    """Finds out whom a damaged column concerns: the episodes that do not match their checksum."""
    damaged = []
    for episode in catalogue.episodes(segment.first_position, segment.first_position + segment.rows):
        start = episode.first_position - segment.first_position
        if not episode.check(rows[start : start + episode.length + 1]):
            damaged.append(episode.first_position)
    log.warning("a column of a segment is damaged", path=str(directory), episodes=len(damaged))
    return damaged


def landed_rows(episodes: Sequence[EpisodeRow], blobs: Sequence[bytes]) -> tuple[Rows, list[int]]:
    """Returns the rows of landed episodes end to end, and the first positions of those whose rows are damaged.

    Args:
        episodes: that are landed.
        blobs: their rows as bytes; none of what is not there.
    """
    counts = [row.length + 1 for row in episodes]
    sound = [crc32c(blob) == row.rows_crc32c for blob, row in zip(blobs, episodes, strict=True)]
    rows = rows_from_bytes([blob if ok else b"" for blob, ok in zip(blobs, sound, strict=True)], counts)
    bad = []
    start = 0
    for row, count, ok in zip(episodes, counts, sound, strict=True):
        if not ok:
            rows[start : start + count] = np.zeros(count, STEP_DTYPE)
            rows["frame_crc32c"][start : start + count] = 0xFFFFFFFF  # so that no frame matches
            bad.append(row.first_position)
        start += count
    return rows, bad


def remove_unknown(
    segments: Path,
    catalogue: Catalogue,
    missing: Collection[int],
    waiting: Set[str],
    aside: Quarantine,
    is_whole: IsWhole,
) -> None:
    """Removes what an interrupted seal or retirement left.

    Args:
        segments: directory of the segments.
        catalogue: of the store.
        missing: first positions of landed episodes whose rows the landing log has not, or not whole.
        waiting: UUIDs of the episodes that are still to be landed again. An interrupted seal may have made a segment of
            them, which stays until they are.
        aside: where things go that are no segments.
        is_whole: tells of the landing log.

    Raises:
        StoreError: there are segments that the catalogue ought to know.
    """
    require_explained(segments, catalogue, missing, waiting, is_whole)
    names = {segment_name(row.number) for row in catalogue.segments()}
    given_up = {segment_name(number) for number in catalogue.retired()}
    for path in sorted(segments.iterdir()):
        if path.name in names or (waiting and path.suffix == ".zarr" and path.name not in given_up):
            continue
        if path.suffix in (".tmp", ".zarr"):
            remove_segment(path)
            log.info("removed what an interrupted seal or retirement left", path=str(path))
        else:
            log.warning("something that is no segment kept aside", path=str(aside.keep_directory(path)))


def remove_segment(path: Path) -> None:
    """Removes a segment in one step: what an interruption leaves is none any more. Raises OSError."""
    temporary = path.with_suffix(".tmp")
    if path != temporary:
        shutil.rmtree(temporary, ignore_errors=True)
        path.rename(temporary)
        flush(path.parent)
    shutil.rmtree(temporary)


def require_explained(
    segments: Path,
    catalogue: Catalogue,
    missing: Collection[int] = (),
    logged: Set[str] = frozenset(),
    is_whole: IsWhole = lambda _: True,
) -> None:
    """Raises StoreError where there are segments that the catalogue has not given up and that are not landed still.

    They may hold episodes that were acknowledged. What a writer seals or retires meanwhile is no matter where this is
    called within ``Catalogue.snapshot``.

    Args:
        segments: directory of the segments.
        catalogue: of the store.
        missing: first positions of landed episodes whose rows the landing log has not: an old catalogue names such.
        logged: UUIDs of the episodes that the landing log has and the catalogue has lost.
        is_whole: tells of the landing log: where it has an episode damaged, and the segment has it sound, the segment
            is needed.
    """
    explained = {segment_name(number) for number in catalogue.retired()}
    explained |= {segment_name(row.number) for row in catalogue.segments()}
    unknown = [path for path in sorted(segments.glob("*.zarr")) if path.name not in explained]
    lost = [path for path in unknown if not _still_landed(path, catalogue, missing, logged, is_whole) and path.exists()]
    if lost:
        raise StoreError(
            f"{segments}: the catalogue knows nothing of {len(lost)} segments, {lost[0].name} to {lost[-1].name}. In "
            "the copy of a store a backup was interrupted: make it again, if the store is there still. Else the "
            "catalogue has lost its end (catalogue.db-wal is part of it) or is an old one, or a seal was interrupted "
            "and the landing log is damaged since: `qtopt data verify --repair` makes the catalogue anew from the "
            "segments; none was touched"
        )


def _still_landed(
    path: Path, catalogue: Catalogue, missing: Collection[int], logged: Set[str], is_whole: IsWhole
) -> bool:
    """Whether a segment unknown to the catalogue holds nothing that is not landed as soundly."""
    try:
        segment, episodes = read_tables(path)
    except (*UNREADABLE, CorruptEpisode):
        return False
    for row in episodes:
        known = catalogue.episode(row.uuid)
        landed = known is not None and known.segment is None and known.first_position not in missing
        if not (row.uuid in logged or (known is not None and landed and known.digest == row.digest)):
            return False
    damaged = [row for row in episodes if not is_whole(row)]
    try:
        return not (damaged and _has_any_whole(catalogue, path, segment, damaged))
    except (*UNREADABLE, CorruptEpisode):
        return False


def _has_any_whole(catalogue: Catalogue, path: Path, segment: SegmentRow, episodes: Sequence[EpisodeRow]) -> bool:
    """Whether any of these episodes of a segment matches its checksums there."""
    rows, frame_offsets, _ = sealed_rows(catalogue, path, segment)
    frames = SegmentFrames(path, segment)
    for row in episodes:
        start = row.first_position - segment.first_position
        span = slice(start, start + row.length + 1)
        steps = rows[span]
        places = zip(
            frame_offsets[span].tolist(), steps["frame_bytes"].tolist(), steps["frame_crc32c"].tolist(), strict=True
        )
        if row.check(steps) and all(crc32c(frames.read(offset, size)) == crc for offset, size, crc in places):
            return True
    return False
