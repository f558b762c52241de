"""Finished episodes on this machine's disk, until a server has them: nothing collected is lost, whatever dies.

One safetensors file an episode, written aside, synced, renamed, and its directory synced: a file with an episode's
name is whole, whenever the power failed. Its digest is in its header, so a file that rots later is noticed, set aside
and reported.

What is set aside lies in ``quarantine`` in the spool's directory, and there it stays. A file that is moved back is
delivered after the next start, at its old place in the line.
"""

import contextlib
import fcntl
import logging
import os
import re
import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from qtopt.durable import flush, make_directory
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
from qtopt.legal import check_episode
from qtopt.types import Episode, new_episode_uuid
from robot_bridge.spooled import decode_episode, encode_episode, said_digest

_log = logging.getLogger(__name__)
_SUFFIX = ".safetensors"
_PARTIAL = ".partial"
QUARANTINE = "quarantine"
_PATIENCE = 10
"""Refusals of one episode before those behind it are tried: what was damaged on the way is sound the next time."""
_OFFERED_AGAIN = 3
"""Of the episodes refused so often, how many are offered at once while nothing is taken."""
_NAMED = re.compile(r"[0-9]+_.+")
_HARMLESS = re.compile(r"[0-9A-Za-z]{1,64}")


class _Waiting(NamedTuple):
    path: Path
    size: int  # [bytes]


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
        self._refusals: dict[str, int] = {}  # by UUID, the longest not refused first
        try:
            make_directory(directory)
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
        files = episode_files(directory)
        for stranger in sorted({*directory.glob(f"*{_SUFFIX}")} - {*files}):
            _log.warning(
                "spool: %s is none of the spool's files, and is left where it is: it is not delivered", stranger
            )
        self._files = {file.stem.partition("_")[2]: _Waiting(file, file.stat().st_size) for file in files}
        self._bytes = sum(file.size for file in self._files.values())
        self._put_here: set[str] = set()  # those that wait and were put since the directory was opened
        self._was_taken = False  # whether a sink has taken any since then
        self._next = 1 + max((int(file.stem.partition("_")[0]) for file in files), default=0)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def set_aside(self) -> int:
        """Episodes that were set aside, by earlier processes too."""
        return sum(1 for _ in (self._directory / QUARANTINE).glob(f"*{_SUFFIX}"))

    def put(self, episode: Episode) -> None:
        """Keeps an episode; when this returns it survives a power cut. The same episode is kept once.

        Raises:
            SchemaMismatch: no server would take it; it was set aside and does not wait.
            EpisodeConflict: another episode of this UUID waits; nothing was kept.
            StoreFull: the spool or the disk has no room; nothing was kept.
        """
        try:
            check_episode(episode)
        except SchemaMismatch as error:
            self._keep_aside(episode, error)
            raise
        content = encode_episode(episode)
        with self._changing:
            known = self._files.get(episode.uuid)
            if known is None:
                return self._keep(episode.uuid, content)
            if said_digest(known.path) == said_digest(content):
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
            SchemaMismatch: it is of a schema version that this release does not read.
            StoreError: the disk does not give it now.
        """
        path = self._files[uuid].path
        try:
            return decode_episode(path)
        except CorruptEpisode as error:
            self._put_aside(uuid, error)
            raise

    def delivered(self, uuid: str) -> None:
        """Forgets an episode that a server has acknowledged; an unknown UUID is no error."""
        with self._changing:
            path = self._forget(uuid)
            if path is None:
                return
            try:
                path.unlink(missing_ok=True)  # not synced: what a power cut brings back is delivered again, in vain
            except OSError as error:
                _log.warning("spool: %s is delivered and stays, to be delivered again later: %s", path.name, error)

    def deliver(self, sink: EpisodeSink, limit: int) -> int:
        """Hands over at most ``limit`` episodes, oldest first; returns how many were acknowledged.

        A file that is damaged, or in conflict with another episode of its UUID, is set aside and reported. Any other
        error of the sink passes through, the episode goes on waiting, and nothing overtakes it. Only when one was
        refused ten times are those behind it tried: if one of them is taken and it is refused even then, the fault is
        its own, and it is set aside too. Of those refused so often a call offers three, the oldest and others in turn.

        SchemaMismatch means that the sink takes nothing of what this process makes: it was the answer to an episode put
        since the directory was opened, and none was taken before. Otherwise it is the refusal of one episode.
        """
        done = 0
        refused: dict[str, StoreError | RemoteError] = {}  # in this call, since one was taken
        while done < limit and (uuid := self._next_offered(refused)) is not None:
            error = self._offer(uuid, sink)
            if error is None:
                done += 1 + self._offer_again(refused, sink)
                refused.clear()
                self._refusals.clear()  # what was refused while nothing was taken is not known to be at fault
            elif uuid in self._files:
                self._refusals[uuid] = self._refusals.pop(uuid, 0) + 1
                if self._refusals[uuid] < _PATIENCE:
                    raise error
                refused[uuid] = error
        if refused:
            raise next(iter(refused.values()))
        return done

    def _next_offered(self, refused: Collection[str]) -> str | None:
        """Returns whose turn it is, after those refused in this call."""
        stuck = [uuid for uuid, times in self._refusals.items() if times >= _PATIENCE]
        again = [uuid for uuid in stuck if uuid not in refused]
        if again and len(refused) < _OFFERED_AGAIN:
            oldest = self.pending()[0]
            return oldest if oldest in again else again[0]
        return next((uuid for uuid in self.pending() if uuid not in stuck), None)

    def _offer(self, uuid: str, sink: EpisodeSink) -> StoreError | RemoteError | None:
        """Hands over an episode; returns why it was not taken, unless that has nothing to do with the episode."""
        try:
            episode = self.load(uuid)
        except SchemaMismatch as error:
            return StoreError(str(error))
        except StoreError as error:
            return error
        try:
            sink.append(episode)
        except (ServerUnavailable, AccessDenied, StoreFull):
            raise
        except EpisodeConflict as error:
            self._put_aside(uuid, error)
            return error
        except SchemaMismatch as error:
            if uuid in self._put_here and not self._was_taken:
                raise
            return StoreError(str(error))
        except (StoreError, RemoteError) as error:
            return error
        self._was_taken = True
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

    def _keep(self, uuid: str, content: bytes) -> None:
        if self._bytes + len(content) > self._max_bytes:
            raise StoreFull(
                f"spool {self._directory}: {len(self)} episodes take {self._bytes} bytes of {self._max_bytes} allowed; "
                "bring the server back or allow more"
            )
        path = self._write(uuid, content, self._directory)
        self._files[uuid] = _Waiting(path, len(content))
        self._put_here.add(uuid)
        self._bytes += len(content)

    def _keep_aside(self, episode: Episode, error: SchemaMismatch) -> None:
        """Sets an episode aside that never waited; there is as much room for these as for those that wait."""
        content = encode_episode(episode)
        place = self._directory / QUARANTINE
        with self._changing:
            taken = _bytes_in(place)
            if taken + len(content) > self._max_bytes:
                raise StoreFull(
                    f"spool {self._directory}: {error}; to set it aside there is no room beside {taken} bytes in "
                    f"{QUARANTINE}, of {self._max_bytes} allowed: see why such episodes are made, and empty it"
                ) from error
            uuid = episode.uuid if _HARMLESS.fullmatch(episode.uuid) else new_episode_uuid()
            aside = self._write(uuid, content, place)
        _log.error("spool: episode %s: %s; set aside as %s", episode.uuid, error, aside)

    def _write(self, uuid: str, content: bytes, place: Path) -> Path:
        """Writes a file durably under the next number; raises StoreFull, and leaves nothing then."""
        name = f"{self._next:012d}_{uuid}"
        partial, path = self._directory / (name + _PARTIAL), place / (name + _SUFFIX)
        try:
            make_directory(place)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            flush(place)
        except OSError as error:
            with contextlib.suppress(OSError):  # as on a disk that has become read-only; the next opening removes it
                partial.unlink(missing_ok=True)
            raise StoreFull(f"spool {self._directory}: {error}; make room on the disk") from error
        self._next += 1
        return path

    def _forget(self, uuid: str) -> Path | None:
        """Takes an episode out of the line; returns its file."""
        self._refusals.pop(uuid, None)
        self._put_here.discard(uuid)
        known = self._files.pop(uuid, None)
        if known is None:
            return None
        self._bytes -= known.size
        return known.path

    def _put_aside(self, uuid: str, error: Exception) -> None:
        place = self._directory / QUARANTINE
        with self._changing:
            path = self._forget(uuid)
            assert path is not None  # only who delivers forgets
            try:
                make_directory(place)
                aside = path.rename(place / path.name)
            except OSError as failure:
                _log.error("spool: %s; left out until the next start, it cannot be set aside: %s", error, failure)
                return
        _log.error("spool: %s; set aside as %s", error, aside)


def episode_files(directory: Path) -> list[Path]:
    """Returns the files in a spool's directory that have an episode's name, oldest first."""
    return sorted(file for file in directory.glob(f"*{_SUFFIX}") if _NAMED.fullmatch(file.stem))


def _bytes_in(directory: Path) -> int:
    """Returns how much the episodes in a directory take; those that somebody takes away meanwhile count for nothing."""
    taken = 0
    for file in directory.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            taken += file.stat().st_size
    return taken


def _count(path: Path) -> int:
    """Returns how often this was called with ``path`` before; a byte for each, so no crash leaves half a number."""
    with path.open("ab") as file:
        before = file.tell()
        file.write(b".")
        file.flush()
        os.fsync(file.fileno())
    return before
