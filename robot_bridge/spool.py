"""Finished episodes on this machine's disk, until a server has them: nothing collected is lost, whatever dies.

One safetensors file an episode, written aside, synced, renamed, and its directory synced: a file with an episode's
name is whole, whenever the power failed. Its digest is in its header, so a file that rots later is noticed, set aside
and reported.

What is set aside lies in ``quarantine`` in the spool's directory, and there it stays. A file that is moved back is
delivered after the next start, at its old place in the line.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from qtopt.errors import (
    AccessDenied,
    ConfigError,
    CorruptEpisode,
    EpisodeConflict,
    RemoteError,
    SchemaMismatch,
    ServerUnavailable,
    StoreError,
    StoreFull,
)
from qtopt.interfaces import EpisodeSink
from qtopt.specs import EPISODE_SPECS, IS_INTERVENTION, SCHEMA_VERSION
from qtopt.types import Episode, EpisodeEnd, Outcome

_log = logging.getLogger(__name__)
_SUFFIX = ".safetensors"
_PARTIAL = ".partial"
_QUARANTINE = "quarantine"
_PATIENCE = 10
"""Refusals of one episode before those behind it are tried: what was damaged on the way is sound the next time."""


class Spool:
    """A durable, bounded queue of episodes in a directory, oldest first; one process owns it at a time.

    One thread may put episodes while another delivers.

    Args:
        directory: made if missing.
        max_bytes: ``put`` refuses beyond this.

    Attributes:
        openings: how often the directory was opened before: what a restarted collector draws new chance from.

    Raises:
        ConfigError: another process has the directory, or it cannot be used.
    """

    def __init__(self, directory: Path, max_bytes: int = 4 << 30) -> None:
        self._directory, self._max_bytes = directory, max_bytes
        self._changing = threading.Lock()  # guards what is known of the files; never held while a sink is asked
        self._refusals: Counter[str] = Counter()  # by UUID, since the directory was opened
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = (directory / "lock").open("w")
        except OSError as error:
            raise ConfigError(
                f"spool {directory}: cannot be used: {error}; give a directory that can be written"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ConfigError(f"spool {directory}: in use by another process; give each collector its own") from error
        self.openings = _count(directory / "openings")
        for leftover in directory.glob(f"*{_PARTIAL}"):
            leftover.unlink()
        files = sorted(directory.glob(f"*{_SUFFIX}"))
        self._files = {file.stem.partition("_")[2]: file for file in files}
        self._bytes = sum(file.stat().st_size for file in files)
        self._next = 1 + max((int(file.stem.partition("_")[0]) for file in files), default=0)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def set_aside(self) -> int:
        """Episodes that were set aside, by earlier processes too."""
        return sum(1 for _ in (self._directory / _QUARANTINE).glob(f"*{_SUFFIX}"))

    def put(self, episode: Episode) -> None:
        """Keeps an episode; when this returns it survives a power cut. The same episode is kept once.

        Raises:
            EpisodeConflict: another episode of this UUID waits; nothing was kept.
            StoreFull: the spool or the disk has no room; nothing was kept.
        """
        content = encode_episode(episode)
        with self._changing:
            known = self._files.get(episode.uuid)
            if known is None:
                return self._write(episode.uuid, content)
            if _said_digest(known) == _said_digest(content):
                return None
            raise EpisodeConflict(
                f"spool {self._directory}: episode {episode.uuid} waits already with other content; give every "
                "episode its own UUID"
            )

    def pending(self) -> list[str]:
        """Returns the UUIDs that wait, oldest first."""
        return list(self._files)

    def load(self, uuid: str) -> Episode:
        """Reads a waiting episode.

        Raises:
            KeyError: none of this UUID waits.
            CorruptEpisode: the file is damaged; it was set aside and no longer waits.
        """
        path = self._files[uuid]
        try:
            return decode_episode(path)
        except CorruptEpisode as error:
            self._put_aside(uuid, error)
            raise

    def delivered(self, uuid: str) -> None:
        """Forgets an episode that a server has acknowledged; an unknown UUID is no error."""
        self._refusals.pop(uuid, None)
        with self._changing:
            path = self._files.pop(uuid, None)
            if path is not None:
                self._bytes -= path.stat().st_size
                path.unlink()  # not synced: a file that a power cut brings back is delivered again, which does nothing

    def deliver(self, sink: EpisodeSink, limit: int) -> int:
        """Hands over at most ``limit`` episodes, oldest first; returns how many were acknowledged.

        A file that is damaged, or in conflict with another episode of its UUID, is set aside and reported. Any other
        error of the sink passes through, the episode goes on waiting, and nothing overtakes it. Only when one was
        refused ten times are those behind it tried: if one of them is taken and it is refused even then, the fault is
        its own, and it is set aside too.
        """
        done = 0
        stuck: dict[str, StoreError | RemoteError] = {}
        for uuid in self.pending():
            if done >= limit:
                break
            error = self._offer(uuid, sink)
            if error is None:
                done += 1 + self._offer_again(stuck, sink)
                stuck.clear()
            elif uuid in self._files:
                self._refusals[uuid] += 1
                if self._refusals[uuid] < _PATIENCE:
                    raise error
                stuck[uuid] = error
        if stuck:
            raise next(iter(stuck.values()))
        return done

    def _offer(self, uuid: str, sink: EpisodeSink) -> StoreError | RemoteError | None:
        """Hands over an episode; returns why it was not taken, unless that has nothing to do with the episode."""
        try:
            episode = self.load(uuid)
        except CorruptEpisode as error:
            return error
        try:
            sink.append(episode)
        except (ServerUnavailable, AccessDenied, StoreFull):
            raise
        except EpisodeConflict as error:
            self._put_aside(uuid, error)
            return error
        except (StoreError, RemoteError) as error:
            return error
        self.delivered(uuid)
        return None

    def _offer_again(self, uuids: Iterable[str], sink: EpisodeSink) -> int:
        """Hands over what was refused before; sets aside what is refused again; returns how many were taken."""
        taken = 0
        for uuid in uuids:
            error = self._offer(uuid, sink)
            if error is None:
                taken += 1
            elif uuid in self._files:
                self._put_aside(uuid, error)
        return taken

    def close(self) -> None:
        """Lets another process have the directory."""
        self._lock.close()

    def _write(self, uuid: str, content: bytes) -> None:
        if self._bytes + len(content) > self._max_bytes:
            raise StoreFull(
                f"spool {self._directory}: {len(self)} episodes take {self._bytes} bytes of {self._max_bytes} allowed; "
                "bring the server back or allow more"
            )
        path = self._directory / f"{self._next:012d}_{uuid}{_SUFFIX}"
        partial = path.with_suffix(_PARTIAL)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            self._sync_directory()
        except OSError as error:
            with contextlib.suppress(OSError):  # as on a disk that has become read-only; the next opening removes it
                partial.unlink(missing_ok=True)
            raise StoreFull(f"spool {self._directory}: {error}; make room on the disk") from error
        self._files[uuid] = path
        self._bytes += len(content)
        self._next += 1

    def _put_aside(self, uuid: str, error: Exception) -> None:
        self._refusals.pop(uuid, None)
        with self._changing:
            path = self._files.pop(uuid)
            self._bytes -= path.stat().st_size
            place = self._directory / _QUARANTINE
            place.mkdir(exist_ok=True)
            aside = path.rename(place / path.name)
        _log.error("spool: %s; set aside as %s", error, aside)

    def _sync_directory(self) -> None:
        handle = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def encode_episode(episode: Episode) -> bytes:
    """Returns an episode as safetensors bytes, facts and digest in the header."""
    arrays = {spec.name: np.ascontiguousarray(getattr(episode, spec.name)) for spec in EPISODE_SPECS}
    if not episode.is_intervention.any():
        del arrays[IS_INTERVENTION]  # as in files from before there was such an array
    facts = json.dumps(
        {
            "schema": SCHEMA_VERSION,
            "uuid": episode.uuid,
            "end": int(episode.end),
            "outcome": int(episode.outcome),
            "policy_version": episode.policy_version,
            "collector": episode.collector,
            "metadata": dict(episode.metadata),
        },
        sort_keys=True,
    )
    return save(arrays, {"facts": facts, "digest": _digest(arrays, facts)})


def decode_episode(path: Path) -> Episode:
    """Reads an episode from a file; raises CorruptEpisode when it is not what was written."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            flags = {IS_INTERVENTION} & set(file.keys())
            names = [spec.name for spec in EPISODE_SPECS if spec.name != IS_INTERVENTION or flags]
            arrays = {name: file.get_tensor(name) for name in names}
        facts = header["facts"]
        if header["digest"] != _digest(arrays, facts):
            raise CorruptEpisode(f"{path.name}: the content does not match its digest")
        known = json.loads(facts)
        if known["schema"] != SCHEMA_VERSION:
            raise CorruptEpisode(f"{path.name}: schema {known['schema']}, expected {SCHEMA_VERSION}")
        arrays.setdefault(IS_INTERVENTION, np.zeros(len(arrays["actions"]), np.bool_))
        for spec in EPISODE_SPECS:
            spec.validate(arrays[spec.name])
        return Episode(
            uuid=known["uuid"],
            **arrays,
            end=EpisodeEnd(known["end"]),
            outcome=Outcome(known["outcome"]),
            policy_version=known["policy_version"],
            collector=known["collector"],
            metadata=known["metadata"],
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError, SchemaMismatch) as error:
        raise CorruptEpisode(f"{path.name}: cannot be read: {error}") from error


def _said_digest(source: Path | bytes) -> str | None:
    """Returns the digest in the header of a file or of its bytes; None where there is none to be read."""
    head = source if isinstance(source, bytes) else source.read_bytes()
    try:
        length = int.from_bytes(head[:8], "little")
        digest = json.loads(head[8 : 8 + length])["__metadata__"]["digest"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return str(digest)


def _count(path: Path) -> int:
    """Returns how often this was called with ``path`` before; a byte for each, so no crash leaves half a number."""
    with path.open("ab") as file:
        before = file.tell()
        file.write(b".")
        file.flush()
        os.fsync(file.fileno())
    return before


def _digest(arrays: dict[str, npt.NDArray[np.generic]], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
