"""The audit log: who appended, who published, who was refused and why; one JSON object a line.

A refusal that comes again and again is counted instead of written, so that nobody can push out the past by knocking.
"""

import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from qtopt.errors import ConfigError
from qtopt.rpc.limits import Bucket
from qtopt.rpc.roles import Identity
from qtopt.types import JsonValue

FILE_BYTES: Final = 16 << 20
"""A log of this size is put aside."""
FILES: Final = 8
"""Logs put aside that are kept."""
_REFUSALS_PER_S: Final = 0.1
_REFUSALS_AT_ONCE: Final = 60
_DOORS: Final = 4096
_LONGEST: Final = 500

_DONE: Final[dict[str, tuple[str, Callable[[Any, Any], dict[str, JsonValue]]]]] = {
    "/qtopt.v1.ReplayService/AppendEpisode": (
        "appended",
        lambda request, answer: {
            "episode": request.episode.uuid,
            "collector": request.episode.collector,
            "is_new": answer.is_new,
        },
    ),
    "/qtopt.v1.ModelService/Publish": (
        "published",
        lambda request, answer: {"version": answer.version, "step": request.step, "digest": request.digest},
    ),
}


class _PrivateFile(RotatingFileHandler):
    """A rotating log that only its owner reads."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


class Audit:
    """Writes the audit log; used by any number of threads.

    Args:
        path: the file; None writes nothing.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._doors: dict[tuple[str, str], Bucket] = {}
        self._untold: dict[tuple[str, str], int] = {}
        self._file: _PrivateFile | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _PrivateFile(path, maxBytes=FILE_BYTES, backupCount=FILES)
        except OSError as error:
            raise ConfigError(f"audit log {path} cannot be written: {error.strerror or error}") from error

    def done(self, client: Identity, peer: str, method: str, request: Any, answer: Any) -> None:
        """Writes that a call was answered, where the call is one that changes something for everybody."""
        if method in _DONE and self._file is not None:
            event, describe = _DONE[method]
            self._write(event, peer, {"who": client.name, "role": client.role, **describe(request, answer)})

    def refused(self, client: Identity | None, peer: str, what: str, why: str) -> None:
        """Writes that a client was refused; one that is refused without end is written now and then, with a count.

        Args:
            client: None where it has not proved who it is, by its certificate at least.
            peer: its address.
            what: the method or, before there is one, ``connection``.
            why: in words.
        """
        if self._file is None:
            return
        at = peer.rpartition(":")[0], what
        with self._lock:
            while len(self._doors) > _DOORS:
                oldest = next(iter(self._doors))
                del self._doors[oldest]
                self._untold.pop(oldest, None)
            door = self._doors.setdefault(at, Bucket(_REFUSALS_PER_S, _REFUSALS_AT_ONCE))
            if not door.take():
                self._untold[at] = self._untold.get(at, 0) + 1
                return
            untold = self._untold.pop(at, 0)
        who: dict[str, JsonValue] = {} if client is None else {"who": client.name, "role": client.role}
        more: dict[str, JsonValue] = {"not_written_before": untold} if untold else {}
        self._write("refused", peer, {**who, "what": what, "why": why[:_LONGEST], **more})

    def close(self) -> None:
        """Closes the file; later calls write nothing."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write(self, event: str, peer: str, facts: dict[str, JsonValue]) -> None:
        file = self._file
        if file is None:
            return
        line = json.dumps({"at": datetime.now(UTC).isoformat(), "event": event, "peer": peer, **facts})
        file.handle(logging.LogRecord("qtopt.audit", logging.INFO, "", 0, line, None, None))
