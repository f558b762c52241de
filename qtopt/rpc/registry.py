"""Published networks on disk: one file a version, the newest in memory.

A file is written whole under another name, synced and renamed, so that a reader or a restart sees all of it or nothing.
Its name holds version, step and digest; the version counter goes on from the highest name found, even if that
file turns out damaged.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qtopt.durable import flush, make_directory
from qtopt.errors import CheckpointError, ConfigError, StoreFull
from qtopt.rpc.codec import check_payload, payload_digest
from qtopt.types import ModelSnapshot

log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"v(\d{8,})-s(\d{10,})-([0-9a-f]{64})\.safetensors")


class ModelRegistry:
    """Keeps published networks: a ModelSource and a ModelSink for one process, used by any number of its threads.

    Args:
        directory: where to keep them, made if it is missing; None keeps the newest in memory only.
        keep: how many versions stay on disk.
        check: raises CheckpointError for a payload that is no networks; by default everything is taken.
    """

    def __init__(
        self, directory: Path | None = None, *, keep: int = 3, check: Callable[[bytes], None] = lambda payload: None
    ) -> None:
        if keep < 1:
            raise ConfigError(f"model registry keep is {keep}, expected at least 1")
        self._directory = directory
        self._keep = keep
        self._check = check
        self._changed = threading.Condition()
        self._newest: ModelSnapshot | None = None
        self._version = 0
        self._published_s = 0.0  # on the wall clock, as the files' times are
        if directory is not None:
            make_directory(directory)
            self._load(directory)

    @property
    def version(self) -> int:
        """The newest version; 0 before the first."""
        newest = self._newest
        return 0 if newest is None else newest.version

    def figures(self) -> dict[str, float]:
        """Returns version and gradient step of the newest networks and their age [s]; none before the first."""
        newest, at_s = self._newest, self._published_s
        if newest is None:
            return {}
        return {
            "policy_version": float(newest.version),
            "policy_step": float(newest.step),
            "policy_age_s": max(0.0, time.time() - at_s),
        }

    def latest(self, newer_than: int = 0) -> ModelSnapshot | None:
        """Returns the newest snapshot if its version is above ``newer_than``, else None.

        A version that was never given here is one of another directory, lost since: to whoever asks with it, whatever
        there is is news.
        """
        newest = self._newest
        if newest is None or newest.version <= newer_than <= self._version:
            return None
        return newest

    def wait(self, newer_than: int, timeout_s: float) -> ModelSnapshot | None:
        """Returns what ``latest`` does as soon as that is a snapshot; None after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: self.latest(newer_than), timeout_s)

    def publish(self, step: int, payload: bytes) -> int:
        """Publishes safetensors bytes and returns the version given; the newest payload and step again keep theirs.

        Raises:
            CheckpointError: the payload is empty or no networks, or the step negative.
            StoreFull: the disk has no room for them.
        """
        if not payload or step < 0:
            raise CheckpointError(
                f"networks: found {len(payload)} bytes of step {step}, expected some bytes and a step"
            )
        self._check(payload)
        digest = payload_digest(payload)
        with self._changed:
            newest = self._newest
            if newest is not None and (newest.step, newest.digest) == (step, digest):
                return newest.version
            snapshot = ModelSnapshot(self._version + 1, step, payload, digest)
            if self._directory is not None:
                _write(self._directory, snapshot)
            self._version = snapshot.version
            self._newest = snapshot
            self._published_s = time.time()
            self._changed.notify_all()
            if self._directory is not None:
                self._remove_old(self._directory)
        return snapshot.version

    def _load(self, directory: Path) -> None:
        for leftover in directory.glob("*.partial"):
            leftover.unlink()
        for version, step, digest, path in reversed(_listing(directory)):
            self._version = max(self._version, version)
            try:
                payload = path.read_bytes()
                check_payload(payload, digest)
                self._check(payload)
            except (OSError, CheckpointError) as error:
                log.warning("published networks %s are left out: %s", path, error)
                continue
            self._newest = ModelSnapshot(version, step, payload, digest)
            self._published_s = path.stat().st_mtime
            return

    def _remove_old(self, directory: Path) -> None:
        for _, _, _, path in _listing(directory)[: -self._keep]:
            path.unlink(missing_ok=True)


def _listing(directory: Path) -> list[tuple[int, int, str, Path]]:
    found = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), int(match[2]), match[3], path) for match, path in found if match)


def _write(directory: Path, snapshot: ModelSnapshot) -> None:
    path = directory / f"v{snapshot.version:08d}-s{snapshot.step:010d}-{snapshot.digest}.safetensors"
    partial = path.with_suffix(f".{time.monotonic_ns()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(snapshot.payload)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        flush(directory)
    except OSError as error:
        partial.unlink(missing_ok=True)
        size = len(snapshot.payload)
        raise StoreFull(
            f"networks of {size} bytes cannot be written to {directory}: {error.strerror}: make room there"
        ) from error
