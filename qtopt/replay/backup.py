"""A second copy of a store, also of one that a server is writing: complete at every moment, quick when repeated.

The catalogue is copied as of one moment; the landing log from that moment on, with all that is landed then and perhaps
more; segments, which never change, are copied once. The copy is a store like any other. Files come before the catalogue
that names them, under names that the copy has not yet, and go after the one that does not, so that a copy interrupted
anywhere is the one before or the one after.
"""

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qtopt.durable import flush, make_directory
from qtopt.errors import StoreError, StoreFull
from qtopt.replay.catalogue import CATALOGUE_FILE, Catalogue, SegmentRow
from qtopt.replay.copies import require_nothing_more
from qtopt.replay.disk import SEGMENTS
from qtopt.replay.episode_store import LABELS_FILE
from qtopt.replay.landing import one_moment
from qtopt.replay.landing_file import LogFile, is_whole
from qtopt.replay.landing_log import LANDING, LandingLog, next_path
from qtopt.replay.lock import WriterLock
from qtopt.replay.opening import require_explained
from qtopt.replay.schema import STORE_FILE, read_format
from qtopt.replay.segment_files import flush_tree, segment_name

_TEMPORARY: Final = "backup.tmp"
_ATTEMPTS: Final = 10
_IDENTITY: Final = ("zarr.json", "episode_uuid/c/0/0")
"""Files of a segment that no other segment shares."""


@dataclass
class BackupReport:
    """What was done.

    Attributes:
        segments: in the copy now.
        copied: of them, those that were not there before.
        removed: those that the store has given up since the last time.
        landed: episodes in the copy now that are in no segment yet.
    """

    segments: int = 0
    copied: int = 0
    removed: int = 0
    landed: int = 0


def back_up(source: Path, target: Path, *, link: bool = False) -> BackupReport:
    """Makes ``target`` a copy of the store at ``source``, or brings an earlier copy up to date.

    Args:
        source: a store; a server may be writing it.
        target: directory of the copy; made if it is not there. Nobody else may have it open.
        link: share the segments' files with the store instead of copying them, which takes no time and no room, and
            helps against mistakes but not against a broken disk.

    Raises:
        StoreError: there is no store, it is damaged, or ``target`` is something else than its copy, or was written to.
        StoreFull: ``target`` cannot be written; it is what it was.
    """
    fmt = read_format(source)
    try:
        make_directory(target)
        if (target / STORE_FILE).exists():
            _require_copy_of(source, target)
        elif any(target.iterdir()):
            raise StoreError(f"{target}: holds other things than a copy of a store; give another directory")
        else:
            fmt.write(target / STORE_FILE)
            flush(target)
        lock = WriterLock(target)
        try:
            return _Backup(source, target, link=link).run()
        finally:
            shutil.rmtree(target / _TEMPORARY, ignore_errors=True)
            lock.release()
    except OSError as error:
        raise StoreFull(f"{target}: the copy cannot be written: {error}; see to it and try again") from error


def _require_copy_of(source: Path, target: Path) -> None:
    """Raises StoreError unless ``target``, a store, may be a copy of ``source``."""
    found, expected = read_format(target), read_format(source)
    found.require_same(expected, str(target / STORE_FILE))
    if found.store_id == expected.store_id != "":
        return
    if (found.store_id and expected.store_id) or not _share_an_episode(source, target):
        raise StoreError(
            f"{target}: is not of the store {source} (store_id: found {found.store_id or 'none'}, expected "
            f"{expected.store_id or 'none'}) and was left as it is: give another directory for the copy, or, if the "
            f"store is lost, take it back from there with `qtopt data restore --store {target} --into NEW`"
        )


def _share_an_episode(source: Path, target: Path) -> bool:
    """Whether some episode of a copy is in the store still, or the copy has none; for stores without ``store_id``."""
    if not (target / CATALOGUE_FILE).exists():
        return not any((target / SEGMENTS).glob("*.zarr"))
    with (
        closing(Catalogue(source, read_only=True)) as store,
        closing(Catalogue(target, read_only=True)) as copy,
    ):
        batches = ([row.uuid for row in batch] for batch in copy.batches())
        return copy.is_empty() or any(store.known(uuids) for uuids in batches)


class _Backup:
    def __init__(self, source: Path, target: Path, *, link: bool) -> None:
        self._source, self._target, self._link = source, target, link
        self._temporary = target / _TEMPORARY
        self._report = BackupReport()

    def run(self) -> BackupReport:
        (self._target / SEGMENTS).mkdir(exist_ok=True)
        for _ in range(_ATTEMPTS):
            segments = self._copy_catalogue()
            if all(self._copy_segment(row) for row in segments):
                self._finish({segment_name(row.number) for row in segments})
                return self._report
        raise StoreError(f"{self._source}: gives up segments faster than they are copied; raise its retention")

    def _copy_catalogue(self) -> list[SegmentRow]:
        """Copies one state of the catalogue aside, with what is landed in it; returns the segments that it names."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        (self._temporary / LANDING).mkdir(parents=True)
        with (
            closing(Catalogue(self._source, read_only=True)) as catalogue,
            one_moment(catalogue, self._source) as files,
        ):
            waiting = _waiting(self._source, catalogue, files)
            require_explained(self._source / SEGMENTS, catalogue, logged=waiting)  # else the copy would lose them
            require_nothing_more(self._target, self._source, catalogue, waiting)
            catalogue.backup(self._temporary / CATALOGUE_FILE)
            for file in files:
                _copy_log(file, self._temporary / LANDING / file.path.name)
            segments = catalogue.segments()
            self._report.landed = catalogue.landed_count()
            return segments

    def _copy_segment(self, row: SegmentRow) -> bool:
        """Copies a segment unless it is there; returns False when the store has just given it up."""
        name = segment_name(row.number)
        here, there = self._source / SEGMENTS / name, self._target / SEGMENTS / name
        try:
            if there.exists():
                self._require_same(here, there)
                return True
            aside = self._temporary / name
            shutil.copytree(here, aside, copy_function=os.link if self._link else shutil.copy2)
        except (FileNotFoundError, shutil.Error) as error:
            if not self._still_has(row):
                return False
            raise StoreError(
                f"{here}: cannot be copied to {there}: {error}; see whether the store is sound (`qtopt data verify`) "
                "and whether there is room; shared files need one file system"
            ) from error
        if not self._still_has(row):  # the copy may lack what was removed before it was reached
            return False
        flush_tree(aside)
        aside.rename(there)
        self._report.copied += 1
        return True

    def _still_has(self, row: SegmentRow) -> bool:
        with closing(Catalogue(self._source, read_only=True)) as catalogue:
            return catalogue.has_segment(row.number)

    def _require_same(self, here: Path, there: Path) -> None:
        if any((here / name).read_bytes() != (there / name).read_bytes() for name in _IDENTITY):
            raise StoreError(f"{there}: is not of the store {self._source}; give another directory for its copy")

    def _finish(self, names: set[str]) -> None:
        """Lets the new catalogue take the place of the old one, then removes what it does not name."""
        segments, landing = self._target / SEGMENTS, self._target / LANDING
        flush(segments)
        self._renew_format()
        landing.mkdir(exist_ok=True)
        before = list(landing.iterdir())
        for path in sorted((self._temporary / LANDING).iterdir()):
            flush(path)
            path.rename(next_path(landing, path))
        flush(landing)
        flush(self._temporary / CATALOGUE_FILE)
        for log in self._target.glob(f"{CATALOGUE_FILE}-*"):  # of the old one
            log.unlink()
        (self._temporary / CATALOGUE_FILE).replace(self._target / CATALOGUE_FILE)
        flush(self._target)
        if (self._source / LABELS_FILE).exists():
            shutil.copy2(self._source / LABELS_FILE, self._temporary / LABELS_FILE)
            (self._temporary / LABELS_FILE).replace(self._target / LABELS_FILE)
        for path in before:
            path.unlink()
        for path in segments.iterdir():
            if path.name not in names:
                shutil.rmtree(path)
                self._report.removed += 1
        self._report.segments = len(names)

    def _renew_format(self) -> None:
        """Says so in the copy when the store was renewed, or given its id, since the last time."""
        fmt, copied = read_format(self._source), read_format(self._target)
        if fmt.format_version > copied.format_version or (fmt.store_id and not copied.store_id):
            fmt.write(self._target / STORE_FILE)
            flush(self._target)


def _waiting(root: Path, catalogue: Catalogue, files: Sequence[LogFile]) -> set[str]:
    """Returns the UUIDs of the whole episodes in the landing log that the catalogue has lost: a copy has them too."""
    rest = LandingLog(root / LANDING, files, math.inf).take_rest(0)
    return {episode.row.uuid for episode in rest if catalogue.episode(episode.row.uuid) is None and is_whole(episode)}


def _copy_log(file: LogFile, to: Path) -> None:
    """Copies a file of the log, also one that has just been removed."""
    with os.fdopen(os.dup(file.handle), "rb") as source, to.open("wb") as target:
        source.seek(0)
        shutil.copyfileobj(source, target)


def restore(copy: Path, target: Path) -> BackupReport:
    """Makes a store at ``target``, which must not exist, of a copy that ``back_up`` made.

    Raises:
        StoreError: there is something at ``target``, or ``copy`` is no store.
        StoreFull: ``target`` cannot be written.
    """
    if target.exists() and any(target.iterdir()):
        raise StoreError(f"{target}: is not empty; move what is there aside, or restore to another directory")
    return back_up(copy, target)
