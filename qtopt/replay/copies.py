"""Whether a copy of a store is one still: it was written to since where it holds what the store has not."""

import bisect
import math
from collections.abc import Collection, Iterator, Set
from contextlib import closing, suppress
from pathlib import Path

from qtopt.errors import CorruptEpisode, StoreError
from qtopt.replay.catalogue import CATALOGUE_FILE, Catalogue, SegmentRow
from qtopt.replay.disk import SEGMENTS
from qtopt.replay.landing_file import is_whole
from qtopt.replay.landing_log import LANDING, LandingLog, open_files
from qtopt.replay.record import REPLACED, EpisodeRow
from qtopt.replay.segment_files import UNREADABLE, read_tables


def require_nothing_more(copy: Path, source: Path, store: Catalogue, waiting: Set[str]) -> None:
    """Raises StoreError where a copy holds episodes that the store neither has nor has given up.

    Args:
        copy: directory of the copy, which nobody writes.
        source: directory of the store.
        store: its catalogue; this thread reads one state of it.
        waiting: UUIDs of the episodes that the store has in its landing log alone.
    """
    given_up = store.retired_segments()
    same = {_identity(segment) for segment in (*store.segments(), *given_up)}
    try:
        held = list(_held(copy, same))
    except StoreError as error:
        raise StoreError(
            f"{copy}: what it holds cannot be told ({error}), and it was left as it is: give another directory for the "
            "copy"
        ) from error
    more = sum(
        row.uuid not in waiting and store.episode(row.uuid) is None and not _is_within(row, given_up) for row in held
    )
    if more:
        raise StoreError(
            f"{copy}: holds {more} episodes that the store {source} neither has nor has given up, as a restored store "
            "does that is in use, and was left as it is: give another directory for the copy. To have them in the "
            f"store first, stop its server and run `qtopt data merge --store {copy} --into {source}`"
        )


def _held(copy: Path, but: Collection[tuple[int, ...]]) -> Iterator[EpisodeRow]:
    """Yields the episodes of a copy, without those of some segments and without what was stored again."""
    log = LandingLog(copy / LANDING, open_files(copy / LANDING), math.inf)
    if not (copy / CATALOGUE_FILE).exists():  # a first backup that was interrupted, or a store that has lost it
        for path in sorted((copy / SEGMENTS).glob("*.zarr")):
            with suppress(*UNREADABLE, CorruptEpisode):
                segment, episodes = read_tables(path)
                if _identity(segment) not in but:
                    yield from episodes
        yield from (episode.row for episode in log.take_rest(0) if is_whole(episode))
        return
    with closing(Catalogue(copy, read_only=True)) as catalogue:
        end = 0
        for segment in catalogue.segments():
            end = segment.first_position + segment.rows
            if _identity(segment) not in but:
                yield from _served(catalogue.episodes(segment.first_position, end))
        for batch in catalogue.batches(end):
            yield from _served(batch)
        for episode in log.take_rest(end):
            if catalogue.episode(episode.row.uuid) is None and is_whole(episode):
                yield episode.row


def _served(rows: Collection[EpisodeRow]) -> Iterator[EpisodeRow]:
    return (row for row in rows if row.quarantined != REPLACED)


def _identity(segment: SegmentRow) -> tuple[int, ...]:
    """Returns what tells a segment from others also when a rebuilt catalogue has put it at another position."""
    return (segment.number, segment.rows, segment.episodes, segment.frame_bytes)


def _is_within(row: EpisodeRow, segments: list[SegmentRow]) -> bool:
    """Whether an episode lies where one of the segments, which are in order of position, was."""
    place = bisect.bisect_right(segments, row.first_position, key=lambda segment: segment.first_position) - 1
    return place >= 0 and (row.first_position + row.length < segments[place].first_position + segments[place].rows)
