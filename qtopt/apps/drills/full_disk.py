"""Disks that are full, break or are slow under a server: it refuses clearly, loses nothing, goes on by itself.

A collector's outbox delivers numbered episodes; what the server refuses waits in the collector's spool. A trainer and
an updater have begun before, and go on meanwhile, whether their networks can be published or not. Scenes:

* reserve: little room is left; the store refuses before the disk is full. The server is killed and started on the disk
  as it is; then there is room again.
* full: the same without a reserve, up to the disk's own refusal.
* read-only: an ext4 file system finds an error and takes no more writing. It is unmounted, checked and mounted, for
  which the server has to be started anew.
* slow: each flush takes 0.3 s longer, then one hangs for 16 s.
"""

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import grpc
import tyro
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qtopt.apps.drills.audit import Audit, Ledger
from qtopt.apps.drills.disks import BreakableDisk, slow_disk, small_disk
from qtopt.apps.drills.episodes import numbered_episode
from qtopt.apps.drills.joining import join_within
from qtopt.apps.drills.learning import Learning
from qtopt.apps.drills.report import DrillConfig, finish
from qtopt.apps.drills.served import Served
from qtopt.errors import ProcessFailed, QtOptError, StoreFull
from qtopt.loops.outbox import Outbox
from qtopt.replay import ReplayConfig
from qtopt.replay.condition import STALLED_S
from qtopt.rpc import Connection
from qtopt.types import JsonValue
from robot_bridge.spool import Spool

_IMAGE_PX, _STEPS = 48, 8
_FIRST, _MOST = 5, 400
_WAIT_S = 60.0
_DELIVERED_S = 15.0
"""Within so many seconds of room all that waited is delivered: the server looks at its disk every few seconds."""
_PAUSE_S, _HANG_S = 0.3, STALLED_S + 6
_SENT_SLOWLY = 10
_AT_REST_S = 7.0
"""A disk that has refused for so long is full: a seal that failed was tried again meanwhile."""
_SERVICE = "qtopt.v1.ReplayService"


@dataclass(frozen=True)
class Config(DrillConfig):
    """Runs the scenes.

    Attributes:
        scenes: which ones.
        seed: written to the result; the drill draws nothing.
    """

    scenes: tuple[str, ...] = ("reserve", "full", "read-only", "slow")


class Scene:
    """A server over a disk, a collector with a spool, and what went wrong.

    Args:
        root: where spool and logs lie.
        disk: where the store lies.
        min_free_mb: what the store keeps free [MB].
        cut_off: whether the disk is taken away in the middle of writing.
    """

    def __init__(self, root: Path, disk: Path, min_free_mb: float, *, cut_off: bool = False) -> None:
        config = ReplayConfig(segment_mb=1.0, min_free_mb=min_free_mb, quarantine_mb=0.0, min_transitions=16)
        self._served = Served(disk, _IMAGE_PX, config)
        self._spool = Spool(root / "spool")
        self._ledger = Ledger(2)  # the second one is always refused
        self._audit = Audit(self._served.store, self._ledger, _IMAGE_PX, _STEPS, cut_off=cut_off)
        self.breaches: list[str] = []
        self.facts: dict[str, JsonValue] = {}
        self.start()
        self._learning = Learning(root, self.connection.address, _IMAGE_PX)
        for _ in range(_FIRST):
            self.deliver()
        self.breaches += self._learning.expect_steps()

    def start(self) -> None:
        """Starts a server on the disk as it is."""
        self.process: BaseProcess = self._served.start()
        connection = self._served.connect(self.process)
        if connection is None:
            raise ProcessFailed(
                f"the server ended with {self.process.exitcode}, expected it to start: {self._served.said()}"
            )
        self.connection: Connection = connection
        self._outbox = Outbox(connection.replay, self._spool)

    def kill(self) -> None:
        """Kills the server."""
        self.process.kill()
        join_within([self.process])
        self.connection.close()

    def end(self) -> None:
        """Ends the server and who learns from it, and lets go of the spool."""
        self.facts |= self._learning.told()
        self.breaches += self._learning.end()
        self.process.terminate()
        self.process.join(20.0)
        self.connection.close()
        self._spool.close()

    def deliver(self) -> bool:
        """Delivers one more episode, or has it spooled; returns whether it was acknowledged."""
        number = self._ledger.begin(0)
        episode = numbered_episode(0, number, _IMAGE_PX, _STEPS)
        self._outbox.keep(episode)
        self._outbox.flush()
        self._ledger.acknowledged(0, is_new=True)  # the collector has done its part: from now on it must not be lost
        return not self._outbox.waiting

    def fill(self) -> None:
        """Delivers until the disk takes nothing any more: what is sealed meanwhile gives room back, for a moment."""
        stored, refused_s = int(str(self.facts.get("stored_before", 0))), time.monotonic()
        while time.monotonic() < refused_s + _AT_REST_S:
            if self.deliver():
                stored, refused_s = stored + 1, time.monotonic()
            else:
                time.sleep(0.5)
            if stored > _MOST:
                raise QtOptError(f"the disk took {stored} episodes, expected it to be full before")
        self.facts |= {"stored_before": stored, "spooled": self._outbox.waiting}

    def expect_refusal(self) -> None:
        """Looks at what the server says while it cannot write."""
        try:
            self.connection.replay.append(numbered_episode(1, 0, _IMAGE_PX, _STEPS))
            self.breaches.append("an episode was taken")
        except StoreFull as error:
            self.facts["refusal"] = str(error).replace(str(self._served.store), "STORE")
        stats = self.connection.replay.stats()
        if stats["writable"]:
            self.breaches.append("the store says that it is writable")
        self.expect_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        if not len(self.connection.replay.sample_transitions(16, 1.0).position):
            self.breaches.append("nothing could be sampled")
        self.breaches += self._learning.expect_steps()

    def expect_recovery(self) -> None:
        """Waits until all that was spooled is stored, without help, and compares everything."""
        started = time.monotonic()
        while self._outbox.waiting and time.monotonic() < started + _WAIT_S:
            self._outbox.flush()
            time.sleep(0.05)
        self.facts["delivered_after_s"] = round(time.monotonic() - started, 1)
        if self._outbox.waiting:
            self.breaches.append(f"{self._outbox.waiting} episodes wait in the spool after {_WAIT_S:g} s")
        if not self.connection.replay.stats()["writable"]:
            self.breaches.append("the store says that it is not writable")
        self.expect_health(health_pb2.HealthCheckResponse.SERVING)
        self.breaches += self._learning.expect_publication(self.connection)
        self.facts["gradient_steps"] = self._learning.step()
        self.facts["episodes"] = int(self.connection.replay.stats()["episodes"])
        self.breaches += self._audit.check()

    def expect_health(self, expected: int) -> None:
        """Asks the server's health for a while: it looks every few seconds."""
        with grpc.insecure_channel(self.connection.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            deadline = time.monotonic() + 10.0
            while True:
                found = stub.Check(health_pb2.HealthCheckRequest(service=_SERVICE), timeout=5.0).status
                if found == expected or time.monotonic() > deadline:
                    break
                time.sleep(0.2)
        name = health_pb2.HealthCheckResponse.ServingStatus.Name
        if found != expected:
            self.breaches.append(f"health says {name(found)}, expected {name(expected)}")


def _full(root: Path, min_free_mb: float) -> Scene:
    with small_disk(root / "disk", 16) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(8 << 20))
        scene = Scene(root, disk, min_free_mb)
        scene.fill()
        scene.expect_refusal()
        scene.kill()
        scene.start()
        scene.fill()
        scene.expect_refusal()
        ballast.unlink()
        scene.expect_recovery()
        scene.end()
        return scene


def _read_only(root: Path) -> Scene:
    with BreakableDisk(root / "disk", 64) as disk:
        scene = Scene(root, root / "disk", 1.0, cut_off=True)
        disk.break_it()
        scene.fill()
        scene.expect_refusal()
        scene.kill()
        disk.mend()
        scene.start()
        scene.expect_recovery()
        scene.end()
        return scene


def _slow(root: Path) -> Scene:
    disk = root / "disk"
    disk.mkdir()
    scene = Scene(root, disk, 1.0)
    started = time.monotonic()
    with slow_disk(scene.process.pid or 0, _PAUSE_S):
        acknowledged = sum(scene.deliver() for _ in range(_SENT_SLOWLY))
        scene.facts |= {"acknowledged_while_slow": acknowledged, "of": _SENT_SLOWLY}
        scene.facts["seconds_for_them"] = round(time.monotonic() - started, 1)
    with slow_disk(scene.process.pid or 0, _HANG_S):
        sender = threading.Thread(target=scene.deliver, name="sender", daemon=True)
        sender.start()
        noticed = False
        while sender.is_alive() and not noticed:
            noticed = not scene.connection.replay.stats()["writable"]
            time.sleep(0.1)
        if not noticed:
            scene.breaches.append("a disk that did not answer was not noticed")
        scene.expect_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        if not sender.is_alive():
            scene.breaches.append("health said so only when the disk had answered")
        join_within([sender])
    scene.expect_recovery()
    scene.end()
    return scene


_SCENES: dict[str, Callable[[Path], Scene]] = {
    "reserve": lambda root: _full(root, 2.0),
    "full": lambda root: _full(root, 0.0),
    "read-only": _read_only,
    "slow": _slow,
}


def judge(facts: Mapping[str, Any]) -> list[str]:
    """Returns, in words, what of a scene's figures is not as promised.

    Args:
        facts: as the drill prints them; what belongs to other scenes may be absent.
    """
    breaches = []
    if facts["delivered_after_s"] > _DELIVERED_S:
        breaches.append(f"all was delivered after {facts['delivered_after_s']} s, expected {_DELIVERED_S:g} at most")
    refusal = facts.get("refusal", "nothing was stored: free disk space")
    if not ("nothing was stored" in refusal and "free disk space" in refusal):
        breaches.append(f"a refusal does not say that nothing was stored, and to free disk space: {refusal}")
    if facts["said_not_published"] != facts["said_published_again"]:
        breaches.append(
            f"the trainer said {facts['said_not_published']} times that networks are not published, "
            f"{facts['said_published_again']} times that they are again"
        )
    if "of" in facts:
        if facts["acknowledged_while_slow"] != facts["of"]:
            breaches.append(f"a slow disk took {facts['acknowledged_while_slow']} of {facts['of']} episodes at once")
        if facts["seconds_for_them"] < facts["of"] * _PAUSE_S:
            breaches.append(f"a disk that rests {_PAUSE_S} s took {facts['of']} in {facts['seconds_for_them']} s")
    return breaches


def main(config: Config) -> int:
    """Runs the drill; returns 1 after a breach."""
    started, breaches, figures = time.monotonic(), list[str](), dict[str, JsonValue]()
    for name in config.scenes:
        root = Path(tempfile.mkdtemp(prefix="full-disk-", dir="."))
        scene = _SCENES[name](root)
        figures[name] = scene.facts
        breaches += [f"{name}: {breach}" for breach in (*scene.breaches, *judge(scene.facts))]
        shutil.rmtree(root)
    return finish("full_disk", figures, breaches, seed=config.seed, started=started, to=config.json)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
