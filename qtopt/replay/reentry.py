"""Sealed segments into a catalogue made anew, with as much of the damaged ones as can be told."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from qtopt.errors import CorruptEpisode, StoreError
from qtopt.replay.catalogue import Catalogue
from qtopt.replay.record import REPLACED, EpisodeRow
from qtopt.replay.salvage import Tables, read_sound_tables, salvage
from qtopt.replay.schema import StoreFormat
from qtopt.replay.segment_files import UNREADABLE


@dataclass
class RebuildReport:
    """What was found.

    Attributes:
        segments, episodes: entered from sealed segments.
        landed: episodes saved from the landing log and from the landing table of a store of format 1.
        quarantined: of the sealed ones, those that are not served.
        set_aside: segments and pieces of the landing log of which nothing could be used, kept in the quarantine.
        useless: those segments.
        notes: what is damaged.
        old_catalogue: where the old catalogue was put; None if there was none.
    """

    segments: int = 0
    episodes: int = 0
    landed: int = 0
    quarantined: int = 0
    set_aside: int = 0
    useless: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    old_catalogue: Path | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing that was read was damaged."""
        return not self.notes


def enter_segments(
    directory: Path, fmt: StoreFormat, old_catalogues: Sequence[Path], catalogue: Catalogue, report: RebuildReport
) -> int:
    """Enters every sealed segment; returns the position behind the last.

    Args:
        directory: of the segments.
        fmt: of the store.
        old_catalogues: files that may tell what a damaged segment does not, the newest first.
        catalogue: the new one.
        report: told of it all.
    """
    placed = _placed([_read(path, fmt, old_catalogues, report) for path in sorted(directory.glob("*.zarr"))])
    best: dict[str, tuple[bool, int]] = {}  # of episodes that were stored again, the newest that is not damaged
    for _, episodes in placed:
        for row in episodes:
            best[row.uuid] = max(best.get(row.uuid, (False, -1)), (row.quarantined is None, row.first_position))
    end = 0
    for segment, episodes in placed:
        rows = [row if best[row.uuid][1] == row.first_position else row.replaced() for row in episodes]
        catalogue.enter_segment(segment, rows)
        report.segments += 1
        report.episodes += len(rows)
        report.quarantined += sum(row.quarantined not in (None, REPLACED) for row in rows)
        end = segment.first_position + segment.rows
    return end


def _read(path: Path, fmt: StoreFormat, old_catalogues: Sequence[Path], report: RebuildReport) -> Tables | None:
    """Returns what a catalogue has to know of a segment, its positions from 0 where its own are lost; None of none."""
    try:
        return read_sound_tables(path, fmt)
    except (*UNREADABLE, CorruptEpisode) as damage:
        for old in old_catalogues:
            tables = _remembered(old, path)
            if tables is not None:
                report.notes.append(f"{path}: {damage}; {old} has told what is in it")
                return tables
        try:
            tables = salvage(path, fmt)
        except (*UNREADABLE, CorruptEpisode) as error:
            report.set_aside += 1
            report.useless.append(path)
            report.notes.append(f"{path}: {damage}; {error}: it goes to the quarantine as a whole")
            return None
        lost = sum(row.quarantined is not None for row in tables[1])
        report.notes.append(f"{path}: {damage}; {lost} of {len(tables[1])} episodes are quarantined")
        return tables


def _remembered(old_catalogue: Path, path: Path) -> Tables | None:
    """Returns what an old catalogue knows of a segment, if all of that is sound."""
    try:
        with closing(Catalogue(old_catalogue.parent, read_only=True)) as old:
            segment = next((row for row in old.segments() if row.number == int(path.stem)), None)
            if segment is None:
                return None
            episodes = old.episodes(segment.first_position, segment.first_position + segment.rows)
    except StoreError:
        return None
    whole = len(episodes) == segment.episodes and sum(row.length + 1 for row in episodes) == segment.rows
    return (segment, episodes) if whole else None


def _placed(found: Sequence[Tables | None]) -> list[Tables]:
    """Returns tables with positions for all, in order, which is that of their numbers.

    Segments whose numbers follow one another lie side by side; others where they say, if there is room.
    """
    tables = [each for each in found if each is not None]
    placed: list[Tables] = []
    for segment, episodes in tables:
        start = segment.first_position
        if placed:
            before = placed[-1][0]
            end = before.first_position + before.rows
            start = end if segment.number == before.number + 1 else max(end, start)
        placed.append((replace(segment, first_position=start), _moved(episodes, start - segment.first_position)))
    return placed


def _moved(episodes: Sequence[EpisodeRow], by: int) -> list[EpisodeRow]:
    return [replace(row, first_position=row.first_position + by) for row in episodes] if by else list(episodes)
