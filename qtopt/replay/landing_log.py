"""The landing log: episodes as they arrive, record behind record, in files that only grow until all in them is sealed.

A record holds the whole of an episode with checksums of its own. A group of episodes costs one write and one flush, and
is durable with that: what the catalogue has not heard of when the power fails is landed again from here. An episode
that was landed again has several records, and the first whose frames match their checksums counts: a failure while it
was written again costs nothing. Records of what was refused do no harm. A file that was there when the store was opened
is never written again, so that a torn record at its end is passed over.
"""

import contextlib
import os
import re
import secrets
import threading
from collections.abc import Collection, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import structlog

from qtopt.durable import flush, make_directory
from qtopt.errors import CorruptEpisode, StoreError, StoreFull
from qtopt.replay.landing_file import (
    MARK_BYTES,
    LandedEpisode,
    LeftOut,
    LogFile,
    first_whole,
    pieces,
    record_head,
    scan,
    write_at,
)
from qtopt.replay.quarantine import Quarantine
from qtopt.replay.record import LASTING, EpisodeRow, Record

_log = structlog.get_logger(__name__)

LANDING: Final = "landing"
"""Directory of the log within a store."""
FILE_FACTS: Final = 8 << 20
"""Bytes of facts from which another file is begun, whatever the frames' size."""
_DIGITS: Final = 8
_NAME: Final = re.compile(rf"[0-9]{{{_DIGITS}}}(-[0-9a-f]{{{2 * MARK_BYTES}}})?\.log")


def open_files(directory: Path) -> list[LogFile]:
    """Opens the files of a log for reading, in the order in which they were begun."""
    files = []
    for path in _paths(directory):
        with contextlib.suppress(FileNotFoundError):  # sealed and removed meanwhile, by who writes the store
            files.append(LogFile(path, os.O_RDONLY))
    return files


def next_path(directory: Path, copied: Path | None = None) -> Path:
    """Returns where the next file of a log belongs: one with a mark of its own, or a copy of one, with that one's."""
    number = 1 + max((int(path.stem[:_DIGITS]) for path in _paths(directory)), default=0)
    mark = f"-{secrets.token_hex(MARK_BYTES)}" if copied is None else copied.stem[_DIGITS:]
    return directory / f"{number:0{_DIGITS}d}{mark}.log"


def _paths(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*.log") if _NAME.fullmatch(path.name))


class LandingLog:
    """The landed episodes of a store; one thread appends, one removes, any number read.

    Args:
        directory: of the log; made with its first file.
        files: those that there are.
        file_bytes: size from which another file is begun.

    Raises:
        StoreError: a file cannot be read.
    """

    def __init__(self, directory: Path, files: Sequence[LogFile], file_bytes: float) -> None:
        self._directory = directory
        self._file_bytes = file_bytes
        self._lock = threading.Lock()
        self._places: dict[int, tuple[LogFile, int, int]] = {}
        self._files = list(files)
        self._current: LogFile | None = None
        self._found: dict[tuple[Any, ...], LandedEpisode] = {}  # by all that makes it the same episode
        self._left_out: list[LeftOut] = []
        for file in files:
            self._read(file)

    def _read(self, file: LogFile) -> None:
        with _readable(file):
            for found in scan(file):
                if isinstance(found, LeftOut):
                    self._left_out.append(found)
                    continue
                first = self._found.setdefault(_content(found.row), found)
                if first is not found:
                    first.again.append(found)
                file.end = max(file.end, found.row.first_position + found.row.length + 1)

    def _enter(self, file: LogFile, first: int, offset: int, sizes: Sequence[int]) -> None:
        for position, size in enumerate(sizes, first):
            self._places[position] = (file, offset, size)
            offset += size
        file.end = max(file.end, first + len(sizes))

    def adopt(self, row: EpisodeRow) -> bytes:
        """Serves the frames of an episode found on opening; returns its steps as bytes, none when it is not there.

        Raises:
            StoreError: of several records, none is sound, and one cannot be read.
        """
        found = self._found.pop(_content(row), None)
        if found is None:
            return b""
        episode = self._counting(found)
        self._enter(episode.file, row.first_position, episode.offset, episode.sizes())
        return episode.steps

    def _counting(self, episode: LandedEpisode) -> LandedEpisode:
        """Returns which of several records counts; the frames of a single one are checked when they are read."""
        if not episode.again:
            return episode
        with _readable(episode.file):
            try:
                return first_whole(episode)[0]
            except CorruptEpisode:
                self.leave_out(episode)
                return episode

    def take_rest(self, start: int) -> list[LandedEpisode]:
        """Returns what nobody adopted from position ``start`` on, in order of position, and keeps it no longer."""
        found, self._found = self._found.values(), {}
        rest = [episode for episode in found if episode.position >= start]
        return sorted(rest, key=lambda episode: (episode.position, episode.row.uuid))

    def leave_out(self, episode: LandedEpisode) -> None:
        """Says that no record of an episode can be used."""
        self._left_out += [piece for piece in pieces(episode) if piece not in self._left_out]

    def left_out(self) -> list[LeftOut]:
        """Returns what no episode is made of, in the files that there are."""
        return list(self._left_out)

    def set_aside(self, quarantine: Quarantine, files: Collection[LogFile] | None = None) -> list[tuple[LeftOut, Path]]:
        """Keeps what is left out, of all files or of some, in the quarantine; returns where. Raises OSError."""
        chosen = [piece for piece in self._left_out if files is None or piece.file in files]
        return [(piece, kept) for piece in chosen if (kept := piece.keep(quarantine)) is not None]

    def keep_records(self, episodes: Collection[EpisodeRow], quarantine: Quarantine) -> dict[bytes, set[Path]]:
        """Keeps all records of some episodes in the quarantine, durably; returns where, by the episodes' digests.

        Raises:
            StoreError: a file of the log cannot be read.
            OSError: the quarantine cannot be written.
        """
        kept: dict[bytes, set[Path]] = {row.digest: set() for row in episodes}
        with self._lock:
            files = list(self._files)
        for file in files:
            with _readable(file):
                records = [each for each in scan(file) if isinstance(each, LandedEpisode) and each.row.digest in kept]
            for record in records:
                places = (piece.keep(quarantine) for piece in pieces(record))
                kept[record.row.digest].update(place for place in places if place is not None)
        return kept

    @contextlib.contextmanager
    def appended(self, records: Sequence[Record]) -> Iterator[None]:
        """Appends records, which have their positions, durably before the block; takes them back if it fails.

        Raises:
            StoreFull: they cannot be written.
        """
        with self._lock:
            file = self._writable()
            heads = [record_head(record, file.mark) for record in records]
            parts = [part for head, record in zip(heads, records, strict=True) for part in (head, *record.frames)]
            try:
                write_at(file.handle, b"".join(parts), file.bytes)
                os.fdatasync(file.handle)
                yield
            except OSError as error:
                self._take_back(file)
                raise StoreFull(
                    f"{self._directory}: cannot be written ({error}); nothing was stored: free disk space, see whether "
                    "the disk is mounted read-only, and try again"
                ) from error
            except Exception:
                self._take_back(file)
                raise
            for head, record in zip(heads, records, strict=True):
                sizes = [len(frame) for frame in record.frames]
                self._enter(file, record.row.first_position, file.bytes + len(head), sizes)
                file.bytes += len(head) + sum(sizes)
                file.facts_bytes += len(record.row.facts)

    def _take_back(self, file: LogFile) -> None:
        try:
            os.ftruncate(file.handle, file.bytes)
        except OSError:  # as if the process had ended here
            self._current = None

    def _writable(self) -> LogFile:
        file = self._current
        if file is None or file.bytes >= self._file_bytes or file.facts_bytes >= FILE_FACTS:
            file = self._current = self._begin()
            self._files.append(file)
        return file

    def _begin(self) -> LogFile:
        try:
            make_directory(self._directory)
            file = LogFile(next_path(self._directory), os.O_CREAT | os.O_EXCL | os.O_RDWR)
            try:
                flush(self._directory)
            except OSError:
                file.path.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreFull(
                f"{self._directory}: takes no file ({error}); nothing was stored: free disk space, see whether the "
                "disk is mounted read-only, and try again"
            ) from error
        return file

    def close(self) -> None:
        """Lets go of all files; whoever reads one just now still can."""
        with self._lock:
            self._files, self._current, self._places, self._found = [], None, {}, {}
            self._left_out = []

    def frame(self, position: int) -> bytes | None:
        """Returns a landed frame, unchecked; None when it is not there, or no longer. Raises OSError."""
        place = self._places.get(position)
        return None if place is None else place[0].read(*place[1:])

    def settle(self, end: int) -> None:
        """Says that all records in the files count as lying before ``end``, wherever else some were landed before."""
        with self._lock:
            for file in self._files:
                file.end = min(file.end, end)

    def ends(self) -> set[int]:
        """Returns the positions before which whole files lie."""
        with self._lock:
            return {file.end for file in self._files}

    def drop_before(self, position: int, quarantine: Quarantine) -> None:
        """Forgets what is before ``position`` and removes the files that hold nothing else.

        What is left out of them goes to the quarantine first.
        """
        with self._lock:
            for file in [file for file in self._files if file.end <= position]:
                try:
                    self.set_aside(quarantine, [file])
                    file.path.unlink(missing_ok=True)
                except OSError as error:
                    _log.warning("a sealed file of the landing log stays for now", error=str(error))
                    continue
                self._files.remove(file)
                self._left_out = [piece for piece in self._left_out if piece.file is not file]
                if file is self._current:
                    self._current = None
            for known in [known for known in self._places if known < position]:
                del self._places[known]


@contextlib.contextmanager
def _readable(file: LogFile) -> Iterator[None]:
    """Turns an OSError into a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{file.path.parent}: cannot be read ({error}); see to the disk and open the store again"
        ) from error


_content = attrgetter(*(name for name in LASTING if name not in ("first_position", "facts")))
"""All of a row but where it lies, and its facts, which the digest covers."""
