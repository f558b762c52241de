"""Kills server, trainer, updaters and collectors at any moment and starts them again in any order, on one store.

All are the real programs with small networks and images. Each round kills one process of each kind at random times and
starts it again after a random pause, every third round before the others have come back from the round before. At the
end every episode that a collector's disk has seen has to be in the store, once and in order; each trainer has to have
begun with the newest checkpoint of the one before, and its loss must not jump.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import tyro

from qtopt.agent.cem import CemConfig
from qtopt.agent.images import ImageConfig
from qtopt.agent.learner import LearnerConfig
from qtopt.agent.network import NetworkConfig
from qtopt.apps import collect, label, serve, train
from qtopt.apps.drills.arrivals import compare
from qtopt.apps.drills.curve import JournalledFigures, compare_lives
from qtopt.apps.drills.processes import Processes
from qtopt.apps.drills.report import DrillConfig, finish
from qtopt.apps.drills.witness import Witness
from qtopt.apps.process import free_port
from qtopt.config import CameraConfig
from qtopt.errors import QtOptError
from qtopt.loops.checkpoints import all_checkpoints
from qtopt.loops.label import LabelLoopConfig
from qtopt.loops.train import TrainLoopConfig
from qtopt.replay import LabelRingConfig, ReplayConfig
from qtopt.rpc import ClientConfig, Connection, ServerConfig, connect
from qtopt.types import JsonValue
from sim.config import SimConfig

_IMAGE_PX: Final = 24
_CAMERA: Final = CameraConfig(size_px=_IMAGE_PX)
_COLLECTORS, _UPDATERS = 2, 2
_COLLECTORS_NICE: Final = 5
_CEM: Final = CemConfig(samples=8, elites=2, iterations=1)
_NETWORK: Final = NetworkConfig(image=ImageConfig(stored_px=_IMAGE_PX, crop_px=20), camera=_CAMERA, width=6)


@dataclass(frozen=True)
class Config(DrillConfig):
    """Kills the roles again and again.

    Attributes:
        times: kills of each kind of process.
        steps: gradient steps that the trainer has to do to count as come back; 80 let its loss be compared.
        spread_s: time in which the kills of a round fall [s].
        patience_s: how long a round may take to come back [s].
        root: where everything lies while the drill runs; None makes a directory for it.
    """

    times: int = 100
    steps: int = 80
    spread_s: float = 2.0
    patience_s: float = 180.0
    root: Path | None = None


@dataclass(frozen=True)
class _Trainer:
    """What the trainer's process gets."""

    config: train.Config
    journal: Path


def _train(given: _Trainer) -> int:
    """Runs the trainer with a journal of its steps."""
    return train.main(given.config, JournalledFigures(given.journal))


class Drill:
    """The rounds, one after another, and what was found."""

    def __init__(self, config: Config, root: Path, processes: Processes, witness: Witness) -> None:
        self._config, self._root, self._processes, self._witness = config, root, processes, witness
        self._chance = random.Random(config.seed)
        self._port = free_port()
        self._mains = self._plan()
        self._kills: Counter[str] = Counter()
        self._resumed_at: list[int] = []
        self._recovery_s: list[float] = []
        self.breaches: list[str] = []

    def run(self) -> None:
        """Starts everything, kills as often as was asked, and ends everything in order."""
        for name in self._mains:
            self._start(name)
        connection = self._connect()
        with connection:
            self._come_back(connection, time.monotonic())
            for number in range(self._config.times):
                self._round()
                if number % 3:
                    self._come_back(connection, time.monotonic())
            self._come_back(connection, time.monotonic())
        for kind in ("collector", "updater", "trainer", "server"):
            names = [name for name in self._mains if name.startswith(kind)]
            self.breaches += self._processes.stop(names, self._config.patience_s)

    def figures(self) -> dict[str, JsonValue]:
        """Returns what was found."""
        recovery = sorted(self._recovery_s)
        return {
            "kills": dict(self._kills),
            "recovery_s_p50_max": [round(recovery[len(recovery) // 2], 2), round(recovery[-1], 2)] if recovery else [],
            "trainer_resumed_from": len(self._resumed_at),
        }

    def _plan(self) -> dict[str, tuple[Callable[[Any], int], Any]]:
        root = self._root
        server = ClientConfig(f"127.0.0.1:{self._port}", connect_timeout_s=120.0, call_timeout_s=5.0)
        replay = ReplayConfig(
            min_transitions=16, labels=LabelRingConfig(capacity=2000), segment_mb=1.0, seal_after_s=5.0
        )
        mains: dict[str, tuple[Callable[[Any], int], Any]] = {
            "server": (
                serve.main,
                serve.Config(
                    listen=ServerConfig(port=self._port),
                    store=root / "store",
                    models=root / "models",
                    image_px=_IMAGE_PX,
                    cem=_CEM,
                    replay=replay,
                ),
            ),
            "trainer": (
                _train,
                _Trainer(
                    train.Config(
                        server=server,
                        checkpoints=root / "checkpoints",
                        resume=True,
                        learner=LearnerConfig(network=_NETWORK, batch=16),
                        loop=TrainLoopConfig(publish_every_s=1.0, checkpoint_every_s=0.5),
                    ),
                    root / "steps.txt",
                ),
            ),
        }
        for number in range(_UPDATERS):
            updater = label.Config(
                server=server, name=str(number), seed=number, cem=_CEM, loop=LabelLoopConfig(batch_size=32)
            )
            mains[f"updater-{number}"] = (label.main, updater)
        for number in range(_COLLECTORS):
            collector = collect.Config(
                server=server,
                name=f"collector-{number}",
                spool=root / "spool" / f"collector-{number}",
                seed=number,
                cem=_CEM,
            )
            mains[collector.name] = (collect.main, replace(collector, sim=SimConfig(camera=_CAMERA)))
        return mains

    def _start(self, name: str) -> None:
        nice = _COLLECTORS_NICE if name.startswith("collector") else 0  # they are never idle, and shall starve nobody
        self._processes.start(name, *self._mains[name], nice=nice)

    def _connect(self) -> Connection:
        return connect(
            ClientConfig(f"127.0.0.1:{self._port}", connect_timeout_s=self._config.patience_s, call_timeout_s=3.0)
        )

    def _round(self) -> None:
        """Kills one process of each kind and starts it again, all at random times."""
        victims = [
            "server",
            "trainer",
            f"updater-{self._chance.randrange(_UPDATERS)}",
            f"collector-{self._chance.randrange(_COLLECTORS)}",
        ]
        events: list[tuple[float, str, Callable[[str], None]]] = []
        for name in victims:
            at_s = self._chance.uniform(0.0, self._config.spread_s)
            back_s = at_s + self._chance.choice((0.0, self._chance.uniform(0.0, self._config.spread_s)))
            events += [(at_s, name, self._kill), (back_s, name, self._start)]
        begun = time.monotonic()
        for at_s, name, act in sorted(events, key=lambda event: event[0]):
            time.sleep(max(0.0, begun + at_s - time.monotonic()))
            act(name)

    def _kill(self, name: str) -> None:
        self.breaches += self._processes.died()
        if name not in self._processes.running:  # it has ended by itself, which is a breach already
            return
        self._processes.kill(name)
        self._kills[name.partition("-")[0]] += 1
        if name == "trainer":
            self._resumed_at.append(self._newest_checkpoint())

    def _newest_checkpoint(self) -> int:
        root = self._root / "checkpoints"
        return max((int(path.name) for path in all_checkpoints(root)), default=0) if root.exists() else 0

    def _come_back(self, connection: Connection, since: float) -> None:
        """Waits until all that was killed does its work again."""
        steps, spools = self._newest_checkpoint(), {spool: len(seen.gone) for spool, seen in self._witness.seen.items()}
        delivering, labels = False, 0.0
        while time.monotonic() < since + self._config.patience_s:
            self.breaches += self._processes.died()
            delivering = all(len(self._witness.seen[spool].gone) > before for spool, before in spools.items())
            try:
                labels = float(connection.replay.stats()["labels"])
            except QtOptError:
                labels = 0.0
            if delivering and labels and self._newest_checkpoint() >= steps + self._config.steps:
                self._recovery_s.append(time.monotonic() - since)
                return
            time.sleep(0.1)
        self.breaches.append(
            f"after {self._config.patience_s:g} s: all deliver {delivering}, {labels} labels, checkpoint "
            f"{self._newest_checkpoint()} after {steps}"
        )

    def check_resumption(self) -> None:
        """Compares the step that each trainer began with to the newest checkpoint that the one before had left."""
        lines = self._processes.log("trainer").read_text().splitlines()
        began = [int(json.loads(line)["step"]) for line in lines if '"event": "training"' in line]
        least = max(1, len(self._recovery_s) - 1)  # each time all came back, a trainer had begun
        if len(began) < least:
            self.breaches.append(f"{len(began)} trainers said where they began, expected {least} or more")
        left = iter([0, *self._resumed_at])  # a trainer that was killed before it had a server said nothing
        if not all(any(step == expected for expected in left) for step in began):
            self.breaches.append(f"trainers began with steps {began}, newest checkpoints were {self._resumed_at}")


def main(config: Config) -> int:
    """Runs the drill; returns 1 after a breach."""
    started = time.monotonic()
    root = config.root or Path(tempfile.mkdtemp(prefix="kill-roles-", dir="."))
    spools = [root / "spool" / f"collector-{number}" for number in range(_COLLECTORS)]
    with Witness(spools) as witness:
        with Processes(root / "logs") as processes:
            drill = Drill(config, root, processes, witness)
            drill.run()
            drill.check_resumption()
        figures, breaches = compare(witness, root / "store")
    curve, jumps = compare_lives(root / "steps.txt")
    if config.steps >= 80 and int(str(curve["restarts_compared"])) < config.times // 2:
        jumps.append(f"only {curve['restarts_compared']} restarts could be compared, expected {config.times // 2}")
    breaches = drill.breaches + breaches + jumps
    if not breaches and config.root is None:
        shutil.rmtree(root)
    return finish(
        "kill_roles",
        {**drill.figures(), **figures, **curve},
        breaches,
        seed=config.seed,
        started=started,
        to=config.json,
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
