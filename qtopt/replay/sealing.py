"""From the landing log into a segment: what is written when landed episodes are sealed, and what is not lost by it."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from qtopt.durable import flush
from qtopt.errors import StoreError, StoreFull
from qtopt.replay.catalogue import Catalogue, SegmentRow
from qtopt.replay.checksum import crc32c
from qtopt.replay.landed import Landed
from qtopt.replay.opening import remove_segment, require_explained
from qtopt.replay.record import EpisodeRow
from qtopt.replay.schema import Rows, StoreFormat
from qtopt.replay.segment_files import write_segment
from qtopt.replay.shelf import Damaged


def write_landed(
    final: Path,
    fmt: StoreFormat,
    segment: SegmentRow,
    rows: Rows,
    episodes: Sequence[EpisodeRow],
    landed: Landed,
    catalogue: Catalogue,
) -> list[Damaged]:
    """Makes a segment of landed episodes, durably; the catalogue does not know it yet.

    Of an episode that is damaged in the log, what the log has is in the quarantine before the segment has its name:
    whenever the process ends, nothing goes with the log that is nowhere else.

    Args:
        final: directory of the segment.
        fmt: of the store.
        segment: what the catalogue will say of it.
        rows: their steps.
        episodes: what is landed at the positions of the segment.
        landed: has their frames.
        catalogue: of the store.

    Returns:
        the damaged episodes.

    Raises:
        StoreFull: it cannot be written; nothing was changed.
        StoreError: the frame of an episode that is not quarantined cannot be read, or ``final`` holds what the log has
            not, or has damaged; nothing was changed.
    """
    temporary = final.with_suffix(".tmp")
    bad: set[int] = set()
    try:
        if final.exists():  # of a seal whose transaction failed, or was lost
            require_explained(final.parent, catalogue, is_whole=landed.is_whole)
            remove_segment(final)
        shutil.rmtree(temporary, ignore_errors=True)
        write_segment(temporary, fmt, segment, rows, _frames(rows, episodes, landed, bad), episodes)
        damaged = _keep_aside([row for row in episodes if not bad.isdisjoint(_positions(row))], landed)
        temporary.rename(final)
        flush(final.parent)
    except OSError as error:
        raise StoreFull(
            f"{final}: cannot be written ({error}); the episodes stay in the landing log: free disk space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return damaged


def _positions(row: EpisodeRow) -> range:
    return range(row.first_position, row.first_position + row.length + 1)


def _frames(rows: Rows, episodes: Sequence[EpisodeRow], landed: Landed, bad: set[int]) -> Iterator[bytes]:
    """Yields frames of the sizes in ``rows``; adds the positions of those that are damaged to ``bad``.

    What cannot be read now may be readable later: an episode is given up for that only if it is quarantined already.
    """
    facts = zip(rows["frame_bytes"].tolist(), rows["frame_crc32c"].tolist(), strict=True)
    for row in episodes:
        for position, (size, expected) in zip(_positions(row), facts, strict=False):
            try:
                frame = landed.frame(position) or b""
            except OSError as error:
                if row.quarantined is None:
                    raise StoreError(
                        f"a frame of landed episode {row.uuid} cannot be read ({error}); nothing is sealed, and it is "
                        "tried again: see to the disk. If it stays so, stop the server and run `qtopt data verify "
                        "--repair`, which gives the episode up, so that the others are sealed"
                    ) from error
                frame = b""
            frame = frame[:size].ljust(size, b"\0")
            if crc32c(frame) != expected:
                bad.add(position)
            yield frame


def _keep_aside(episodes: Sequence[EpisodeRow], landed: Landed) -> list[Damaged]:
    """Keeps in the quarantine what the log has of damaged episodes; returns what is to be said of each."""
    kept = landed.keep_records(episodes) if episodes else {}
    return [Damaged(_positions(row), _reason(sorted(kept[row.digest]))) for row in episodes]


def _reason(kept: Sequence[Path]) -> str:
    where = f"; what was landed is kept in {', '.join(map(str, kept))}" if kept else ""
    return f"landed frame does not match its checksum{where}"
