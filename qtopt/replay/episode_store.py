"""The store on disk."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import structlog

from qtopt.durable import flush, make_directory
from qtopt.errors import CheckpointError, StoreError
from qtopt.replay.catalogue import CATALOGUE_FILE
from qtopt.replay.description import require_described
from qtopt.replay.disk import SEGMENTS, DiskShelf
from qtopt.replay.landing_log import LANDING
from qtopt.replay.lock import WriterLock
from qtopt.replay.record import EpisodeRow
from qtopt.replay.schema import FORMAT_VERSION, STORE_FILE, StoreFormat, read_format
from qtopt.replay.shelf import Damaged
from qtopt.replay.store import ReplayConfig, ReplayStore
from qtopt.replay.verify import VerifyReport, verify

log = structlog.get_logger(__name__)

LABELS_FILE = "labels.npz"
_TICK_S = 0.5
_LABELS_EVERY_S = 60.0
_RETRY_SEAL_S = 30.0
_RETIRE_EVERY_S = 60.0
_RETIRE_SHARE = 0.1


class EpisodeStore(ReplayStore):
    """Episodes that survive whatever happens to the process and to the power supply.

    Args:
        root: directory of the store; made if it is not there.
        fmt: what the store holds; None takes what is there.
        config: settings.
        rng: chance of the sampling.
        read_only: samples and reads what was there when it was opened, also while another process writes.

    Raises:
        StoreError: another process writes the store, there is none to open, or its catalogue is lost.
        SchemaMismatch: the store there has another format.
    """

    def __init__(
        self,
        root: Path,
        fmt: StoreFormat | None = None,
        config: ReplayConfig | None = None,
        *,
        rng: np.random.Generator | None = None,
        read_only: bool = False,
    ) -> None:
        config = config or ReplayConfig()
        self.root = root
        self._lock = None if read_only else _locked(root, fmt)
        try:
            super().__init__(_prepare(root, fmt, read_only=read_only), config, rng)
            require_described(root, self.format)
            _require_catalogue(root, read_only=read_only)
            if not read_only:
                self.format = renewed(root, self.format)
            self._shelf: DiskShelf = DiskShelf(
                root,
                self.format,
                self._publish,
                segment_bytes=int(config.segment_mb * 1e6),
                max_open_segments=config.max_open_segments,
                max_waiting=config.max_waiting,
                quarantine_bytes=config.quarantine_mb * 1e6,
                min_free_bytes=config.min_free_mb * 1e6,
                retention=config.retention,
                read_only=read_only,
            )
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self._closed = threading.Event()
        self._failing: set[str] = set()  # what could not be done the last time
        self._take_damage()
        self._load_labels()
        self._keeper = threading.Thread(target=self._keep_house, name="store-keeper", daemon=True)
        if not read_only:
            self._keeper.start()

    def close(self) -> None:
        """Stores what is waiting, saves the labels and lets the next writer in."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._lock is None:
            self._shelf.close()
            return
        self._keeper.join()
        self._save_labels()
        self._shelf.close()
        self._lock.release()

    def seal(self) -> int:
        """Moves all landed episodes into segments; returns how many segments were made.

        Raises:
            StoreFull: there is no room, or the disk cannot be written.
            StoreError: a landed frame cannot be read now. In both cases what is not sealed stays in the landing log.
        """
        made = 0
        while self._shelf.seal():
            made += 1
        self._take_damage()
        return made

    def retire(self, share: float = 1.0) -> int:
        """Gives up the segments that ``config.retention`` does not keep; returns how many.

        By age and by policy version no more than ``share`` of all segments, or one; the rest the next time. With a
        ``share`` of 0 only those go that there is no room for.
        """
        base = self._shelf.retire(share)
        self._forget_before(base)
        return self._shelf.remove_retired()

    def verify(self, *, repair: bool = False) -> VerifyReport:
        """Reads and checks everything, of any size: minutes for each 100 GB.

        With ``repair``, damaged episodes are quarantined, and quarantined ones that are sound (their files were put
        back) are served again from the next opening on.
        """
        report = verify(self._shelf, self.format, self._damage_found)
        if repair:
            for damaged in report.damaged:
                self._quarantine(Damaged([damaged.first_position], damaged.reason))
            self._shelf.quarantine(report.healed, None)
        return report

    def info(self) -> dict[str, float | str]:
        """Returns the format and what is in the store, by name."""
        form = self.format
        described: dict[str, float | str] = {
            "path": str(self.root),
            "image": f"{form.height}x{form.width}",
            "codec": str(form.codec),
            "format_version": float(form.format_version),
            "schema_version": float(form.schema_version),
        }
        return described | self.stats() | {"writable": float(self.condition().writable)}

    def catalogued(self) -> tuple[list[EpisodeRow], int]:
        """Returns the rows of all episodes as of now, in order of position, and how many were ever retired."""
        catalogue = self._shelf.catalogue
        with catalogue.snapshot():
            return catalogue.episodes(), sum(catalogue.retired().values())

    @property
    def unexplained(self) -> str:
        """In words, what segments the catalogue of a store that is only read knows nothing of; empty for none."""
        return self._shelf.unexplained

    def collectors(self, newest: int) -> list[str]:
        """Returns the names of the collectors of the ``newest`` episodes; raises StoreError for a damaged catalogue."""
        return self._shelf.catalogue.collectors(newest)

    def _take_damage(self) -> None:
        for damage in self._shelf.take_damage():
            self._quarantine(damage)

    def _keep_house(self) -> None:
        """Seals, retires and saves the labels when it is time to, until the store is closed."""
        seal_after = retire_after = save_after = time.monotonic()
        while not self._closed.wait(_TICK_S):
            now = time.monotonic()
            if now >= seal_after and self._shelf.due(self.config.seal_after_s):
                sealed = self._try("sealed", self._seal_one)
                seal_after = now if sealed else now + _RETRY_SEAL_S
                self._try("retired", lambda: self.retire(0.0))  # there is more now than before
            if now >= retire_after:
                self._try("retired", lambda: self.retire(_RETIRE_SHARE))
                retire_after = now + _RETIRE_EVERY_S
            if now >= save_after + _LABELS_EVERY_S:
                self._try("saved", self._save_labels)
                save_after = now

    def _try(self, what: str, work: Callable[[], object]) -> bool:
        """Does what can be done again later; returns whether it was done. Failures in a row are told once."""
        try:
            work()
        except Exception as error:
            if what not in self._failing:
                foreseen = isinstance(error, StoreError)
                told = str(error) if foreseen else repr(error)
                log.warning(f"nothing could be {what}; trying again", error=told, exc_info=not foreseen)
            self._failing.add(what)
            return False
        if what in self._failing:
            log.info(f"what waited is {what}")
        self._failing.discard(what)
        return True

    def _seal_one(self) -> None:
        self._shelf.seal()
        self._take_damage()

    def _save_labels(self) -> None:
        with self._changed:
            saved = self._ring.snapshot(time.monotonic())
        try:
            saved.write(self.root / LABELS_FILE)
        except OSError as error:
            log.warning("labels could not be saved; they will be computed again", error=str(error))

    def _load_labels(self) -> None:
        path = self.root / LABELS_FILE
        if self._shelf.lost_entries and self._lock is not None:  # landed again, perhaps at other positions
            path.unlink(missing_ok=True)
        if not path.exists():
            return
        try:
            with self._changed:
                self._ring.load(path, time.monotonic())
                self._ring.keep(self._index.usable(self._ring.positions))
        except CheckpointError as error:
            log.warning("saved labels are not used; they will be computed again", error=str(error))
        self._limiter.count_insert(min(len(self._ring), self.config.limiter.min_size))


def _locked(root: Path, fmt: StoreFormat | None) -> WriterLock:
    """Takes the lock, before anything is looked at or written; of no directory where there is nothing to make."""
    if fmt is None:
        read_format(root)
    make_directory(root)
    return WriterLock(root)


def _prepare(root: Path, fmt: StoreFormat | None, *, read_only: bool) -> StoreFormat:
    """Makes the store if it is not there; returns its format."""
    if fmt is None or read_only or (root / STORE_FILE).exists() or _holds_episodes(root):
        found = read_format(root)
        if fmt is not None:
            found.require_same(fmt, str(root / STORE_FILE))
        return found
    fmt = fmt.named()
    fmt.write(root / STORE_FILE)
    flush(root)
    return fmt


def renewed(root: Path, fmt: StoreFormat) -> StoreFormat:
    """Makes a store of an older format one of ours before anything is written that an older release would not find."""
    ours = replace(fmt if fmt.store_id else fmt.named(), format_version=FORMAT_VERSION)
    if asdict(ours) != asdict(fmt):
        ours.write(root / STORE_FILE)
        flush(root)
    return ours


def _holds_episodes(root: Path) -> bool:
    """Whether there is a catalogue, a segment or a log at ``root``, whatever else is lost there."""
    return (root / CATALOGUE_FILE).exists() or any((*root.glob(f"{SEGMENTS}/*.zarr"), *root.glob(f"{LANDING}/*.log")))


def _require_catalogue(root: Path, *, read_only: bool) -> None:
    """Raises StoreError rather than make an empty catalogue beside segments that it would not know."""
    if (root / CATALOGUE_FILE).exists():
        return
    if read_only or any((root / SEGMENTS).glob("*.zarr")):
        raise StoreError(f"{root}: the catalogue ({CATALOGUE_FILE}) is missing; run `qtopt data verify --repair`")
