"""Where episodes and files are kept that must not be served and must not be lost."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import structlog

from qtopt.durable import flush, make_directory
from qtopt.replay.checksum import crc32c
from qtopt.replay.record import Record

log = structlog.get_logger(__name__)


class Quarantine:
    """A directory of what was kept aside; takes ``limit_bytes`` at most.

    Args:
        directory: made when the first thing is put in.
        limit_bytes: what comes beyond is logged only.
    """

    def __init__(self, directory: Path, limit_bytes: float) -> None:
        self._directory = directory
        self._limit = limit_bytes
        self._size = float(sum(path.stat().st_size for path in directory.glob("*.npz")))

    def keep_record(self, record: Record) -> Path | None:
        """Keeps an episode that was refused; returns where, or None when there is no room for it."""
        row = record.row
        path = self._directory / f"{row.uuid}-{row.digest.hex()[:12]}.npz"
        if path.exists():
            return path
        if self._size + record.size > self._limit:
            log.warning("quarantine is full; refused episode is not kept", uuid=row.uuid, limit_bytes=self._limit)
            return None
        head = {"uuid": row.uuid, "digest": row.digest.hex(), "end": row.end, "outcome": row.outcome}
        head |= {"policy_version": row.policy_version, "facts": row.facts}
        try:
            make_directory(self._directory)
            with path.open("wb") as file:
                np.savez(
                    file,
                    allow_pickle=False,
                    head=np.frombuffer(json.dumps(head).encode(), np.uint8),
                    rows=record.rows,
                    frames=np.frombuffer(b"".join(record.frames), np.uint8),
                )
            flush(path)
            flush(self._directory)
        except OSError as error:
            path.unlink(missing_ok=True)
            log.warning("refused episode could not be kept", uuid=row.uuid, error=str(error))
            return None
        self._size += path.stat().st_size
        return path

    def keep_bytes(self, name: str, data: bytes) -> Path:
        """Keeps bytes of whatever kind, durably and whatever the limit, once; returns where. Raises OSError."""
        path = self._place(name, data)
        if not path.exists():
            make_directory(self._directory)
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(data)
            flush(temporary)
            temporary.rename(path)
            log.warning("bytes that nothing is made of are kept aside", path=str(path))
        flush(self._directory)
        return path

    def kept_bytes(self, name: str, data: bytes) -> Path | None:
        """Returns where ``keep_bytes`` has kept them; None when it has not."""
        path = self._place(name, data)
        return path if path.exists() else None

    def _place(self, name: str, data: bytes) -> Path:
        return self._directory / f"{name}-{crc32c(data):08x}.bytes"

    def keep_file(self, path: Path) -> Path:
        """Keeps a file as it is, without reading it, under a second name, once; returns that. Raises OSError."""
        for number in itertools.count():
            target = self._file_place(path, number)
            if target.exists() and not target.samefile(path):
                continue
            if not target.exists():
                make_directory(self._directory)
                target.hardlink_to(path)
                log.warning("a file of which not all can be read is kept aside", path=str(target))
            flush(self._directory)
            return target
        raise AssertionError("there are more numbers than files")

    def kept_file(self, path: Path) -> Path | None:
        """Returns where ``keep_file`` has kept it; None when it has not."""
        for number in itertools.count():
            target = self._file_place(path, number)
            if not (target.exists() and path.exists()):
                return None
            if target.samefile(path):
                return target
        return None

    def _file_place(self, path: Path, number: int) -> Path:
        return self._directory / f"{path.parent.name}-{path.stem}.{number}{path.suffix}"

    def keep_directory(self, path: Path) -> Path:
        """Moves a directory here; returns where it is now."""
        make_directory(self._directory)
        target = self._directory / path.name
        number = 0
        while target.exists():
            number += 1
            target = self._directory / f"{path.name}.{number}"
        shutil.move(path, target)
        return target
