"""The audit log: who appended, who published, who was refused and why; one JSON object a line.

What changes nothing, a refusal or an episode that is known, is counted instead of written where it comes again and
again, and long texts are cut: nobody pushes out the past by knocking, from however many addresses, or by a long name.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from qtopt.errors import ConfigError
from qtopt.rpc.limits import Bucket
from qtopt.rpc.logfile import LogFile
from qtopt.rpc.peers import network_of
from qtopt.rpc.roles import Identity
from qtopt.types import JsonValue

AT_ONCE: Final = 60
"""Lines of one kind, of one client or of strangers of one network, that are written after a rest."""
STRANGERS_AT_ONCE: Final = 600
"""Lines of all strangers together that are written after a rest."""
_PER_S: Final = 0.1
_DOORS: Final = 4096
_LONGEST: Final = 200
"""Characters of a text, before it is cut."""
_LONGER: Final = {"why": 500}

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


class _Door:
    """What one client, or network, does of one kind: lines that it has left, and how often there was none."""

    def __init__(self, at_once: int) -> None:
        self._bucket = Bucket(_PER_S, at_once)
        self.untold = 0

    def passes(self) -> bool:
        """Returns whether a line is written; it is counted where not."""
        taken = self._bucket.take()
        self.untold += not taken
        return taken

    def told(self) -> int:
        """Returns how many were not written, and begins to count anew."""
        untold, self.untold = self.untold, 0
        return untold


class Audit:
    """Writes the audit log; used by any number of threads, none of which waits for its disk.

    Args:
        path: the file; None writes nothing.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._clients: OrderedDict[tuple[str, str], _Door] = OrderedDict()  # who came last at the end
        self._networks: OrderedDict[tuple[str, str], _Door] = OrderedDict()
        self._strangers = _Door(STRANGERS_AT_ONCE)
        self._file: LogFile | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = LogFile(path, _lost_line)
        except OSError as error:
            raise ConfigError(f"audit log {path} cannot be written: {error.strerror or error}") from error

    def done(self, client: Identity, peer: str, method: str, request: Any, answer: Any) -> None:
        """Writes that a call was answered, where the call is one that changes something for everybody."""
        if method in _DONE and self._file is not None:
            event, describe = _DONE[method]
            facts = describe(request, answer)
            counts = {} if facts.get("is_new", True) else self._admit(client, peer, "known")
            if counts is not None:
                self._write(event, peer, {"who": client.name, "role": client.role, **facts, **counts})

    def refused(self, client: Identity | None, peer: str, what: str, why: str) -> None:
        """Writes that a client was refused; one that is refused without end is written now and then, with a count.

        Clients are counted by name, strangers by their network and then all together.

        Args:
            client: None where it has not proved who it is, by its certificate at least.
            peer: its address.
            what: the method or, before there is one, ``connection``.
            why: in words.
        """
        if self._file is None:
            return
        who: dict[str, JsonValue] = {} if client is None else {"who": client.name, "role": client.role}
        counts = self._admit(client, peer, what)
        if counts is not None:
            self._write("refused", peer, {**who, "what": what, "why": why, **counts})

    def figures(self) -> dict[str, float]:
        """Returns how many lines wait for the disk, and how many are lost so far; 0 without a file."""
        file = self._file
        waiting, lost = (0, 0) if file is None else (file.waiting, file.lost)
        return {"audit_lines_waiting": float(waiting), "audit_lines_lost": float(lost)}

    def flush(self) -> None:
        """Returns when what was said before is written or lost, or the disk has not answered for some seconds."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Writes what waits, as ``LogFile.close`` does, and closes the file; later calls write nothing."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _admit(self, client: Identity | None, peer: str, what: str) -> dict[str, JsonValue] | None:
        """Returns how many lines of this kind were not written since the last, by name; None where this one is not."""
        with self._lock:
            if client is None:
                doors = {
                    "not_written_before": _door(self._networks, (network_of(peer), what)),
                    "strangers_not_written_before": self._strangers,
                }
            else:
                doors = {"not_written_before": _door(self._clients, (client.name, what))}
            if not all(door.passes() for door in doors.values()):
                return None
            return {name: untold for name, door in doors.items() if (untold := door.told())}

    def _write(self, event: str, peer: str, facts: dict[str, JsonValue]) -> None:
        file = self._file
        if file is None:
            return
        file.put(_line({"event": event, "peer": peer, **facts}))


def _door(doors: OrderedDict[tuple[str, str], _Door], at: tuple[str, str]) -> _Door:
    """Returns the door at a place; the one where nobody came for longest goes where there are too many."""
    door = doors.pop(at, None) or _Door(AT_ONCE)
    doors[at] = door
    if len(doors) > _DOORS:
        doors.popitem(last=False)
    return door


def _line(facts: dict[str, JsonValue]) -> str:
    told = {"at": datetime.now(UTC).isoformat(), **facts}
    return json.dumps({name: _cut(value, _LONGER.get(name, _LONGEST)) for name, value in told.items()})


def _lost_line(count: int) -> str:
    """Returns the line in the place of so many that the disk did not take."""
    return _line({"event": "lost", "lines": count})


def _cut(value: JsonValue, longest: int) -> JsonValue:
    if not isinstance(value, str) or len(value) <= longest:
        return value
    return f"{value[:longest]}... cut, of {len(value)} characters"
