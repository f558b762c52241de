"""Cuts, loses, delays and halves the link between collectors and their server, and measures when all goes on by itself.

The server stands in one network namespace, collectors in another (``link.py``), mutual TLS and a token between them.
After each spell of weather the link is whole again, and the time is measured until every collector's disk holds no more
than the episode on its way. At the end every episode has to be in the store, once and in order.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tyro

from qtopt.apps import serve
from qtopt.apps.drills import senders
from qtopt.apps.drills.arrivals import compare
from qtopt.apps.drills.link import CUT, Link, Spell, Traffic, Weather
from qtopt.apps.drills.mutual_tls import make_secrets, secured_client, secured_server
from qtopt.apps.drills.processes import Processes
from qtopt.apps.drills.report import DrillConfig, finish
from qtopt.apps.drills.weathers import unlike
from qtopt.apps.drills.witness import Witness
from qtopt.apps.process import free_port
from qtopt.replay import ReplayConfig
from qtopt.rpc import ClientConfig
from qtopt.types import JsonValue

_SERVER: Final = "10.77.0.1"
_CLIENT: Final = "drill"
_ESTABLISHED: Final = "01"
_DROPPED_S: Final = 20.0
"""Keepalive finds a dead client in 13 s; the server lets go of its connection within this time."""


@dataclass(frozen=True)
class Config(DrillConfig):
    """Lets all weathers pass over a link.

    Attributes:
        spell_s: how long each weather lasts [s]; keepalive finds a silent link in 13 s.
        collectors: how many send.
        every_s: time between two episodes of one collector [s].
        image_px: height and width of the frames [px].
        patience_s: how long coming back may take [s].
        only: these weathers alone; all if none is named.
        root: where everything lies while the drill runs; None makes a directory for it.
    """

    spell_s: float = 30.0
    collectors: int = 4
    every_s: float = 1.0
    image_px: int = 72
    patience_s: float = 60.0
    only: tuple[str, ...] = ()
    root: Path | None = None


class Drill:
    """One weather after another, and what was found."""

    def __init__(self, config: Config, root: Path, processes: Processes, link: Link, witness: Witness) -> None:
        self._config, self._root = config, root
        self._processes, self._link, self._witness = processes, link, witness
        port = free_port()
        secrets = root / "secrets"
        make_secrets(secrets, _SERVER, [_CLIENT])
        self._serve = serve.Config(
            listen=secured_server(secrets, _SERVER, port),
            store=root / "store",
            models=root / "models",
            image_px=config.image_px,
            replay=ReplayConfig(segment_mb=16.0),
        )
        self._send = senders.Config(
            server=secured_client(secrets, _CLIENT, ClientConfig(f"{_SERVER}:{port}", connect_timeout_s=60.0)),
            root=root / "spools",
            count=config.collectors,
            image_px=config.image_px,
            every_s=config.every_s,
            seed=config.seed,
        )
        self._port = port
        self.weathers: dict[str, JsonValue] = {}
        self.breaches: list[str] = []

    def run(self) -> None:
        """Lets the weathers pass."""
        self._start_server()
        self._start_senders()
        self._goes_on("start", time.monotonic())
        spells: dict[str, Callable[[str], None]] = {
            "partition": lambda name: self._spell(name, CUT),
            "loss_30_percent": lambda name: self._spell(name, Weather(loss=0.3)),
            "delay_500_ms_each_way": lambda name: self._spell(name, Weather(delay_s=0.5)),
            "answers_lost": lambda name: self._spell(name, Weather(forward=False)),
            "server_replaced_while_cut": self._replace_server,
            "collectors_replaced_while_cut": self._replace_senders,
        }
        for name in self._config.only or spells:
            spells[name](name)
        for name in ("senders", "server"):
            self.breaches += self._processes.stop([name])

    def _spell(self, name: str, weather: Weather) -> None:
        finished, delivered = self._witness.finished, self._witness.delivered
        spell, since = self._link.change(weather), time.monotonic()
        time.sleep(self._config.spell_s)
        during: dict[str, JsonValue] = {
            "finished_meanwhile": self._witness.finished - finished,
            "delivered_meanwhile": self._witness.delivered - delivered,
            "most_waiting": self._witness.waiting,
        }
        self._mend(name, during, spell, since)

    def _replace_server(self, name: str) -> None:
        """Half open, the collectors' side: the server is gone, and the link swallowed what would have told them."""
        spell, since = self._link.change(CUT), time.monotonic()
        time.sleep(0.5)
        self._processes.kill("server")
        self._start_server()
        time.sleep(5.0)  # less than keepalive takes: the old connections still count as good
        self._mend(name, {"most_waiting": self._witness.waiting}, spell, since)

    def _replace_senders(self, name: str) -> None:
        """Half open, the server's side: it must let go of connections whose other end has gone without a word."""
        before = self._connections()
        if before < self._config.collectors:
            self.breaches.append(
                f"{name}: {before} connections before, expected {self._config.collectors} to be dropped"
            )
        spell, since = self._link.change(CUT), time.monotonic()
        time.sleep(0.5)
        self._processes.kill("senders")
        cut = time.monotonic()
        while self._connections() and time.monotonic() < cut + self._config.patience_s:
            time.sleep(0.2)
        left = self._connections()
        if left:
            self.breaches.append(f"{name}: the server keeps {left} dead connections after {self._config.patience_s} s")
        dropped_s = round(time.monotonic() - cut, 1)
        if dropped_s > _DROPPED_S:
            self.breaches.append(f"{name}: dead connections were dropped after {dropped_s} s, expected {_DROPPED_S:g}")
        self._start_senders()
        self._mend(name, {"connections": before, "dropped_by_server_after_s": dropped_s}, spell, since)

    def _mend(self, name: str, during: dict[str, JsonValue], spell: Spell, since: float) -> None:
        """Ends a spell that began at ``since`` [s, monotonic], sees whether it happened, and waits until all go on."""
        whole = time.monotonic()
        self._link.change(Weather())
        took_s = [
            gone - seen.kept[uuid]
            for seen in self._witness.seen.values()
            for uuid, gone in list(seen.gone.items())
            if gone < whole and seen.kept.get(uuid, 0.0) > since
        ]
        self.breaches += [f"{name}: {said}" for said in unlike(spell, took_s)]
        self.weathers[name] = {
            **during,
            "packets_to_server": _told(spell.backward),
            "packets_to_collectors": _told(spell.forward),
            "back_after_s": self._goes_on(name, time.monotonic()),
        }

    def _goes_on(self, name: str, since: float) -> float | None:
        """Returns after what time all collectors had delivered, and waited for no more than what is on its way [s]."""
        before = {spool: len(seen.gone) for spool, seen in self._witness.seen.items()}
        while time.monotonic() < since + self._config.patience_s:
            self.breaches += self._processes.died()
            if all(len(seen.gone) > before[spool] and seen.waiting <= 1 for spool, seen in self._witness.seen.items()):
                return round(time.monotonic() - since, 2)
            time.sleep(0.05)
        self.breaches.append(
            f"{name}: {self._witness.waiting} episodes still wait {self._config.patience_s:g} s after the link is whole"
        )
        return None

    def _start_server(self) -> None:
        self._processes.start("server", serve.main, self._serve, network=self._link.ends[0])

    def _start_senders(self) -> None:
        self._processes.start("senders", senders.main, self._send, network=self._link.ends[1])

    def _connections(self) -> int:
        """Returns how many connections the server's kernel holds established."""
        pid = self._processes.running["server"].pid
        tables = [Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:] for table in ("tcp", "tcp6")]
        rows = [line.split() for lines in tables for line in lines]
        return sum(row[3] == _ESTABLISHED and int(row[1].rpartition(":")[2], 16) == self._port for row in rows)


def _told(traffic: Traffic) -> dict[str, JsonValue]:
    return {"passed": traffic.passed, "lost": traffic.lost, "share_lost": round(traffic.share_lost, 3)}


def main(config: Config) -> int:
    """Runs the drill; returns 1 after a breach."""
    started = time.monotonic()
    root = config.root or Path(tempfile.mkdtemp(prefix="network-", dir="."))
    root = root.absolute()
    spools = [senders.spool_of(root / "spools", number) for number in range(config.collectors)]
    with Witness(spools) as witness:
        with Processes(root / "logs") as processes, Link(f"qtopt-{os.getpid()}", config.seed) as link:
            drill = Drill(config, root, processes, link, witness)
            drill.run()
        figures, breaches = compare(witness, root / "store")
    breaches = drill.breaches + breaches
    weathers: dict[str, JsonValue] = {"spell_s": config.spell_s, "collectors": config.collectors, **drill.weathers}
    return finish("network", {**weathers, **figures}, breaches, seed=config.seed, started=started, to=config.json)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
