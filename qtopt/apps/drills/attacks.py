"""Attacks on a real server, which has to refuse and log every one, while a good client goes on undisturbed.

``python -m qtopt.apps.drills.attacks --output RESULT.json`` starts `qtopt serve` with TLS, client certificates, tokens
and an audit log, tries everything in ``attackers``, and prints one line of JSON an attack. It exits with 1 when one got
through, was not in the audit log, cost the good client a call or long waiting, or the server much memory.
"""

import argparse
import contextlib
import json
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from cryptography import x509

from qtopt.apps.benches.episodes import again, make_episode
from qtopt.apps.benches.servers import process
from qtopt.apps.certificates import host_name, make_certificate, read_authority
from qtopt.apps.certs import Keys
from qtopt.apps.drills.attack_lines import GotThrough, Site
from qtopt.apps.drills.attackers import ATTACKS
from qtopt.apps.drills.joining import join_within
from qtopt.apps.hardware import hardware
from qtopt.apps.process import free_port, say
from qtopt.apps.rundir import provenance
from qtopt.errors import QtOptError, ServerUnavailable
from qtopt.rpc import ClientConfig, connect
from qtopt.rpc.roles import Role, make_identity
from qtopt.types import JsonValue

IMAGE_PX: Final = 72
_PATIENCE_S: Final = 8.0
_UNSENT_MB: Final = 8.0
_STARTING_S: Final = 180.0
_LOG_WITHIN_S: Final = 20.0
_PAUSE_S: Final = 0.1
_WORST_MS: Final = 5000.0
"""For so long the good client may wait for an acknowledgement while somebody attacks: 608 ms were published."""
_GREW_MB: Final = 64.0
_GREW_FOR_MB: Final = {"large messages to a small method": 400.0, "JSON bomb": 200.0}
"""By how much the server may grow. Some messages of 60 MB, or one of 45 MB, are read at a time; their room is kept."""


@dataclass
class GoodClient:
    """A collector that appends an episode every 0.1 s, without a second try, and keeps count."""

    config: ClientConfig
    appended: int = 0
    failures: list[str] = field(default_factory=list)
    worst_s: float = 0.0

    def run(self, stop: threading.Event) -> None:
        """Appends until it is told to stop."""
        episode = make_episode(np.random.default_rng(1), IMAGE_PX)
        with connect(self.config) as connection:
            while not stop.wait(_PAUSE_S):
                begun = time.perf_counter()
                try:
                    connection.replay.append(again(episode))
                    self.appended += 1
                except QtOptError as error:
                    self.failures.append(str(error))
                self.worst_s = max(self.worst_s, time.perf_counter() - begun)

    def take(self) -> dict[str, JsonValue]:
        """Returns what happened since the last time."""
        found: dict[str, JsonValue] = {
            "good_client_appended": self.appended,
            "good_client_failed": len(self.failures),
            "good_client_worst_ms": round(1e3 * self.worst_s),
        }
        self.appended, self.failures, self.worst_s = 0, [], 0.0
        return found


@dataclass(frozen=True, slots=True)
class Scene:
    """A running server, somebody who uses it, and what is needed to attack it."""

    site: Site
    audit: Path
    good: GoodClient
    server: psutil.Process


def make_keys(root: Path) -> Path:
    """Makes an authority, a server's keys, clients of every role, and keys that are no good; returns the folders."""
    keys, stranger = Keys(root), Keys(root / "elsewhere")
    for each in (keys, stranger):
        each.make_authority()
    keys.make_server([host_name("localhost"), host_name("127.0.0.1")], 10.0)
    for role in Role:
        keys.make_client(make_identity(str(role), str(role)), 10.0)
    keys.make_client(make_identity("good", "collector"), 10.0)
    keys.make_client(make_identity("expired", "viewer"), -1.0)
    keys.make_client(make_identity("late", "viewer"), -1.0)
    stranger.make_client(make_identity("viewer", "viewer"), 10.0)
    folders = root / "clients"
    (root / "elsewhere" / "clients" / "viewer").rename(folders / "stranger")
    authority = read_authority(root / "authority" / "ca.crt", root / "authority" / "ca.key")
    for name, uri in (("late", "qtopt://viewer/late"), ("nobody", "https://example.org")):
        pair = folders / name / "client.crt", folders / name / "client.key"
        make_certificate(authority, name, [x509.UniformResourceIdentifier(uri)], pair, 10.0, server=False)
    return folders


@contextlib.contextmanager
def scene(root: Path) -> Iterator[Scene]:
    """Runs a server in ``root`` with somebody who uses it during the block."""
    folders = make_keys(root / "keys")
    own, port, audit = root / "keys" / "server", free_port(), root / "audit.jsonl"
    flags = ["--listen.port", str(port), "--store", str(root / "store"), "--models", str(root / "models")]
    flags += ["--listen.cert-file", str(own / "server.crt"), "--listen.key-file", str(own / "server.key")]
    flags += ["--listen.client-ca-file", str(own / "ca.crt"), "--listen.token-file", str(own / "tokens")]
    flags += ["--listen.limits.handshake-s", str(_PATIENCE_S), "--listen.limits.request-s", str(_PATIENCE_S)]
    flags += ["--listen.limits.unsent-mb", str(_UNSENT_MB)]
    config = ClientConfig(
        f"127.0.0.1:{port}",
        ca_file=folders / "good" / "ca.crt",
        cert_file=folders / "good" / "client.crt",
        key_file=folders / "good" / "client.key",
        token_file=folders / "good" / "token",
        connect_timeout_s=_STARTING_S,
        call_timeout_s=60.0,
        attempts=1,
    )
    stop = threading.Event()
    good = GoodClient(config)
    with process(
        ["qtopt.cli", "serve", *flags, "--image-px", str(IMAGE_PX), "--audit", str(audit)], root / "server.log"
    ) as server:
        thread = threading.Thread(target=good.run, args=(stop,), name="good client", daemon=True)
        thread.start()
        try:
            _wait_for(good, thread)
            yield Scene(Site(port, folders, IMAGE_PX, _PATIENCE_S), audit, good, server)
        finally:
            stop.set()
            join_within([thread])


def attack(on: Scene, name: str) -> dict[str, JsonValue]:
    """Makes one attack; returns what came of it."""
    work, expected = ATTACKS[name]
    on.good.take()
    already, memory, begun = len(_audited(on.audit)), on.server.memory_info().rss, time.monotonic()
    try:
        how, refused = work(on.site), True
    except GotThrough as error:
        how, refused = str(error), False
    lines = _await_line(on.audit, already, expected)
    before = on.good.appended
    _wait_until(lambda: on.good.appended > before or bool(on.good.failures), 30.0)
    grown = on.server.memory_info().rss - memory
    return {
        "attack": name,
        "refused": refused,
        "how": how,
        "logged": bool(lines),
        "log": lines[0] if lines else None,
        "seconds": round(time.monotonic() - begun, 1),
        "server_grew_mb": round(grown / 1e6, 1),
        **on.good.take(),
    }


def is_fine(found: dict[str, JsonValue]) -> bool:
    """Whether an attack was refused, logged and cost little memory, and the good client got all through, in time."""
    undisturbed = found["good_client_failed"] == 0 and found["good_client_appended"] != 0
    in_time = float(str(found["good_client_worst_ms"])) <= _WORST_MS
    small = float(str(found["server_grew_mb"])) <= _GREW_FOR_MB.get(str(found["attack"]), _GREW_MB)
    return bool(found["refused"] and found["logged"] and undisturbed and in_time and small)


def _await_line(audit: Path, already: int, what: str) -> list[dict[str, JsonValue]]:
    def found() -> list[dict[str, JsonValue]]:
        return [each for each in _audited(audit)[already:] if each["event"] == "refused" and each["what"] == what]

    _wait_until(lambda: bool(found()), _LOG_WITHIN_S)
    return found()


def _audited(audit: Path) -> list[dict[str, JsonValue]]:
    return [json.loads(line) for line in audit.read_text().splitlines()] if audit.exists() else []


def _wait_until(done: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.1)


def _wait_for(good: GoodClient, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _STARTING_S
    while not good.appended:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise ServerUnavailable("the server did not start, or took no episode: see its log")
        time.sleep(0.2)


def main() -> int:
    """Makes every attack; returns 1 when one was not as it should be, see ``is_fine``."""
    parser = argparse.ArgumentParser(prog="python -m qtopt.apps.drills.attacks", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file to write everything to")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, scene(Path(folder)) as on:
        results = []
        for name in ATTACKS:
            results.append(attack(on, name))
            say(json.dumps(results[-1]))
    bad = [str(found["attack"]) for found in results if not is_fine(found)]
    say(json.dumps({"attacks": len(results), "not as they should be": bad}))
    if given.output is not None:
        _save(given.output, results)
    return int(bool(bad))


def _save(path: Path, results: list[dict[str, JsonValue]]) -> None:
    facts = {
        "command": shlex.join(["python", "-m", "qtopt.apps.drills.attacks", *sys.argv[1:]]),
        "commit": provenance()["commit"],
        "hardware": hardware(),
        "attacks": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
