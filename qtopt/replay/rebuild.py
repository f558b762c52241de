"""Makes the catalogue anew from the sealed segments and from what can still be read of the old one."""

import math
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from qtopt.durable import flush
from qtopt.errors import CorruptEpisode, StoreFull
from qtopt.replay.catalogue import CATALOGUE_FILE, EPISODE_COLUMNS, Catalogue, episode_from
from qtopt.replay.checksum import crc32c
from qtopt.replay.disk import QUARANTINE, SEGMENTS
from qtopt.replay.episode_store import LABELS_FILE, renewed
from qtopt.replay.landing import groups, land
from qtopt.replay.landing_file import LandedEpisode, first_whole
from qtopt.replay.landing_log import LANDING, LandingLog, open_files
from qtopt.replay.lock import WriterLock
from qtopt.replay.quarantine import Quarantine
from qtopt.replay.record import REPLACED, EpisodeRow, Record
from qtopt.replay.reentry import RebuildReport, enter_segments
from qtopt.replay.schema import read_format, rows_from_bytes

_TEMPORARY = "rebuild.tmp"


def rebuild_catalogue(root: Path) -> RebuildReport:
    """Makes the catalogue of the store at ``root`` anew; a copy of the old one is kept in the quarantine directory.

    The old one is replaced when the new one is complete: a failure in between leaves everything as it was, perhaps
    without the labels, which are computed again.

    Raises:
        StoreError: there is no store, or another process writes it.
        StoreFull: no room for the new one.
    """
    fmt = read_format(root)
    lock = WriterLock(root)
    temporary = root / _TEMPORARY
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        report = RebuildReport(old_catalogue=_copy_aside(root))
        former, fmt = fmt.format_version, renewed(root, fmt)
        if former == 1 and report.old_catalogue is None:
            report.notes.append(f"{root / CATALOGUE_FILE}: not there; what was not sealed yet was in it, and is lost")
        log = LandingLog(root / LANDING, open_files(root / LANDING), math.inf)
        with closing(Catalogue(temporary)) as catalogue:
            # Copies of earlier repairs too: one that was interrupted may have left the only copy of an episode there.
            olds = sorted((root / QUARANTINE).glob(f"catalogue-*/{CATALOGUE_FILE}"), reverse=True)
            end = enter_segments(root / SEGMENTS, fmt, olds, catalogue, report)
            damaged: list[LandedEpisode] = []
            end = _save(_logged(log, damaged), log, catalogue, end, report)
            for old in olds:
                with closing(sqlite3.connect(old, isolation_level=None)) as reader:
                    end = _save(_landed(reader, report), log, catalogue, end, report)
            quarantine = Quarantine(root / QUARANTINE, math.inf)
            _set_aside(log, damaged, catalogue, quarantine, report)
        if report.old_catalogue is not None:
            _fold(root / CATALOGUE_FILE)
        for path in (*root.glob(f"{CATALOGUE_FILE}-*"), root / LABELS_FILE):
            path.unlink(missing_ok=True)  # the log belongs to the old file, and the labels to its positions
        flush(root)  # a log of the old file must not be found beside the new one
        (temporary / CATALOGUE_FILE).replace(root / CATALOGUE_FILE)
        flush(root)
        for path in report.useless:
            quarantine.keep_directory(path)
    except OSError as error:
        raise StoreFull(f"{root}: the catalogue cannot be rebuilt: {error}; free disk space and try again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.release()
    return report


def _copy_aside(root: Path) -> Path | None:
    """Copies the old catalogue to the quarantine; returns where it is, or None when there was none."""
    files = list(root.glob(f"{CATALOGUE_FILE}*"))
    if not (root / CATALOGUE_FILE).exists():
        return None
    number = 0
    while (target := root / QUARANTINE / f"catalogue-{number:04d}").exists():
        number += 1
    target.mkdir(parents=True)
    for path in files:
        flush(Path(shutil.copy(path, target)))
    for directory in (target, target.parent, root):
        flush(directory)
    return target / CATALOGUE_FILE


def _fold(catalogue: Path) -> None:
    """Takes a catalogue's write-ahead log into its file, which then loses nothing with it, unless it is damaged."""
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(sqlite3.connect(catalogue, isolation_level=None)) as old:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _save(records: Iterator[Record], log: LandingLog, catalogue: Catalogue, end: int, report: RebuildReport) -> int:
    """Lands again, behind ``end``, what is in no segment; returns the new end."""
    for group in groups(records):
        for record in group:  # one that was stored again lies behind the damaged one, whose segment does not say so
            known = catalogue.episode(record.row.uuid)
            sealed = known is not None and known.segment is not None and known.is_same(record.row)
            if known is not None and sealed and known.first_position < record.row.first_position:
                catalogue.quarantine([known.first_position], REPLACED)
        landed = [row for row in land(catalogue, log, group, end) if isinstance(row, EpisodeRow)]
        report.landed += len(landed)
        end += sum(row.length + 1 for row in landed)
    return end


def _logged(log: LandingLog, damaged: list[LandedEpisode]) -> Iterator[Record]:
    """Yields the sound episodes of the landing log; adds the others to ``damaged``."""
    for episode in log.take_rest(0):
        try:
            yield first_whole(episode)[1]
        except (CorruptEpisode, OSError):
            damaged.append(episode)


def _set_aside(
    log: LandingLog,
    damaged: Sequence[LandedEpisode],
    catalogue: Catalogue,
    quarantine: Quarantine,
    report: RebuildReport,
) -> None:
    """Keeps the bytes of what is damaged in the log, and nowhere else in the store, in the quarantine."""
    known = catalogue.known([episode.row.uuid for episode in damaged])
    for episode in damaged:
        if episode.row.uuid not in known or known[episode.row.uuid].quarantined:
            log.leave_out(episode)
    for piece, kept in log.set_aside(quarantine):
        report.set_aside += 1
        report.notes.append(f"{piece}; kept in {kept}")


def _landed(reader: sqlite3.Connection, report: RebuildReport) -> Iterator[Record]:
    """Yields the sound episodes of a landing table, from either end of the table up to where it cannot be read."""
    seen: set[int] = set()
    for order in ("ASC", "DESC"):
        query = (
            f"SELECT {EPISODE_COLUMNS} FROM episode WHERE segment IS NULL "
            f"AND first_position IN (SELECT first_position FROM landed_rows) ORDER BY first_position {order}"
        )
        try:
            for values in reader.execute(query):
                if values[0] in seen:
                    break
                seen.add(values[0])
                try:
                    yield _read_record(reader, episode_from(values))
                except (sqlite3.Error, CorruptEpisode) as error:
                    report.notes.append(f"landed episode {values[1]!r}: {error}")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            report.notes.append(f"landing table: {error}")


def _read_record(reader: sqlite3.Connection, row: EpisodeRow) -> Record:
    first = row.first_position
    found = reader.execute("SELECT rows FROM landed_rows WHERE first_position = ?", (first,)).fetchone()
    query = "SELECT frame FROM landed_frame WHERE position BETWEEN ? AND ? ORDER BY position"
    frames = tuple(frame for (frame,) in reader.execute(query, (first, first + row.length)))
    if found is None or len(frames) != row.length + 1:
        raise CorruptEpisode("rows or frames are missing")
    rows = rows_from_bytes([found[0]], [row.length + 1])
    if not row.check(rows) or any(
        crc32c(frame) != expected for frame, expected in zip(frames, rows["frame_crc32c"].tolist(), strict=True)
    ):
        raise CorruptEpisode("does not match its checksum")
    return Record(row, rows, frames)
