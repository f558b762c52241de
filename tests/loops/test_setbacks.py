"""The loops over a real server that cannot do what they ask for: they say so once, wait, go on, and end when told."""

import contextlib
import dataclasses
import functools
import itertools
import shutil
import threading
import time

import numpy as np
import pytest
import structlog

from qtopt.apps.drills.disks import small_disk
from qtopt.errors import (
    AccessDenied,
    CheckpointError,
    RemoteError,
    ServerUnavailable,
    StoreError,
    StoreFull,
)
from qtopt.loops import retry
from qtopt.loops.checkpoints import POLICY_FILE, Checkpoints
from qtopt.loops.collect import Follower
from qtopt.loops.label import LabelLoopConfig, label
from qtopt.loops.outbox import Outbox
from qtopt.loops.train import TrainLoopConfig, train
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.rpc import BackgroundServer, ServerConfig, Services, connect
from qtopt.rpc.registry import ModelRegistry
from qtopt.types import Targets
from robot_bridge.spool import Spool
from tests.episodes import make_episode
from tests.mounting import mounted_or_skipped
from tests.ports import free_port
from tests.waiting import wait_until

NETWORKS = bytes(300_000)


class Faulty(MemoryStore):
    """A store whose disk, or whose program, fails while ``error`` is set."""

    error = None

    def sample_transition_frames(self, count, timeout_s):
        self._fail()
        return super().sample_transition_frames(count, timeout_s)

    def sample_labelled_frames(self, count, timeout_s):
        self._fail()
        return super().sample_labelled_frames(count, timeout_s)

    def put_targets(self, targets):
        self._fail()
        super().put_targets(targets)

    def _fail(self):
        if self.error is not None:
            raise self.error


class CountingLearner:
    """A learner of nothing, whose networks are a few hundred KB."""

    step = 0

    def update(self, batch):
        self.step += 1
        return {"loss": 0.0}

    def snapshot(self):
        return self.step.to_bytes(8, "little") + NETWORKS


class Loop:
    """Runs a loop in a thread until told to stop; keeps its turns, and what ended it."""

    def __init__(self, make):
        self.turns, self.error = [], None
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(make,), daemon=True)
        self._thread.start()

    def _run(self, make):
        try:
            for turn in make(self._told.is_set):
                self.turns.append(turn)
        except Exception as error:
            self.error = error

    def alive(self):
        return self._thread.is_alive()

    def stop(self):
        """Tells it to stop, and waits for that."""
        self._told.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def store(rng):
    with Faulty(StoreFormat.for_images(16), rng=np.random.default_rng(0)) as store:
        for _ in range(20):
            store.append(make_episode(rng, steps=3))
        transitions = store.sample_transitions(60, 1.0)
        store.put_targets(Targets(transitions.position, np.full(60, 0.5, np.float32), 1))
        yield store


@pytest.fixture
def disk(tmp_path):
    with mounted_or_skipped(small_disk(tmp_path / "disk", 2)) as disk:
        yield disk


@contextlib.contextmanager
def served(store, registry=None):
    services = Services((16, 16), lambda: store, registry or ModelRegistry())
    with BackgroundServer(ServerConfig(port=0), services) as server, connect(server.address) as remote:
        yield remote


def training(remote, learner, save, *, resumed=False, **settings):
    config = TrainLoopConfig(**{"publish_every_s": 0.0, "checkpoint_every_s": 3600.0, "timeout_s": 0.2} | settings)
    return lambda stop: train(
        remote.replay, learner, remote.model, save, batch_size=8, config=config, resumed=resumed, stop=stop
    )


def labelling(remote):
    def build(snapshot):
        return lambda transitions, version: Targets(
            transitions.position, np.full(len(transitions), 0.5, np.float32), version
        )

    return lambda stop: label(
        remote.replay,
        remote.replay,
        remote.model,
        build,
        config=LabelLoopConfig(batch_size=8, timeout_s=0.2),
        stop=stop,
    )


def told(said, level="warning"):
    return [line["event"] for line in said if line["log_level"] == level]


def saving(learner, checkpoints):
    return lambda: checkpoints.save(learner.step, lambda to: (to / POLICY_FILE).write_bytes(learner.snapshot()))


def fill(disk):
    """Takes all room of a disk; returns the file to remove."""
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return disk / "ballast"


def test_a_trainer_goes_on_while_the_servers_disk_has_no_room_for_networks(store, disk, tmp_path):
    learner, registry = CountingLearner(), ModelRegistry(disk / "models")
    with structlog.testing.capture_logs() as said, served(store, registry) as remote:
        ballast = fill(disk)
        loop = Loop(training(remote, learner, lambda: tmp_path))
        wait_until(lambda: learner.step >= 20 or not loop.alive())
        assert loop.error is None
        assert registry.version == 0
        assert told(said) == ["networks are not published; trying again"]
        ballast.unlink()
        wait_until(lambda: registry.version)
        wait_until(lambda: told(said, "info") == ["no longer: networks are not published"])
        loop.stop()
    assert loop.error is None
    assert loop.turns[-1].published == registry.version
    assert registry.latest().step == learner.step


def test_a_trainer_goes_on_while_there_is_no_room_for_a_checkpoint(store, disk):
    learner, checkpoints, registry = CountingLearner(), Checkpoints(disk / "checkpoints"), ModelRegistry()
    save = saving(learner, checkpoints)
    with structlog.testing.capture_logs() as said, served(store, registry) as remote:
        ballast = fill(disk)
        loop = Loop(training(remote, learner, save, checkpoint_every_s=0.0, publish_every_s=3600.0))
        wait_until(lambda: learner.step >= 20 or not loop.alive())
        assert told(said) == ["no checkpoint is written; trying again", "networks are not published; trying again"]
        assert registry.version == 0  # its restart would find them, and no checkpoint
        ballast.unlink()
        wait_until(lambda: registry.version)
        assert (disk / "checkpoints" / "last" / POLICY_FILE).is_file()  # while others come and go many times a second
        loop.stop()
    assert loop.error is None
    assert loop.turns[-1].checkpoint.name == f"{learner.step:010d}"


def test_a_first_checkpoint_is_owed_while_nothing_is_labelled_for_want_of_networks(disk):
    learner, checkpoints, registry = CountingLearner(), Checkpoints(disk / "checkpoints"), ModelRegistry()
    with MemoryStore(StoreFormat.for_images(16)) as empty, served(empty, registry) as remote:
        ballast = fill(disk)
        loop = Loop(training(remote, learner, saving(learner, checkpoints), publish_every_s=3600.0))
        wait_until(lambda: len(loop.turns) > 1)
        assert registry.version == 0
        ballast.unlink()
        wait_until(lambda: registry.version)
        loop.stop()
    assert loop.error is None
    assert learner.step == 0


def test_a_trainer_that_has_a_checkpoint_publishes_though_there_is_no_room_for_another(store, disk):
    learner, checkpoints, registry = CountingLearner(), Checkpoints(disk / "checkpoints"), ModelRegistry()
    save = saving(learner, checkpoints)
    save()
    learner.step = 1
    with served(store, registry) as remote:
        ballast = fill(disk)
        loop = Loop(training(remote, learner, save, resumed=True))
        wait_until(lambda: registry.version)
        assert [path.name for path in checkpoints.all()] == ["0000000000"]
        ballast.unlink()
        loop.stop()
    assert loop.error is None


@pytest.mark.parametrize(
    ("kind", "error"), [("trainer", ZeroDivisionError()), ("updater", StoreFull("no room")), ("updater", KeyError())]
)
def test_a_loop_outlives_a_fault_within_the_server(store, tmp_path, monkeypatch, kind, error):
    monkeypatch.setattr(retry, "Backoff", functools.partial(retry.Backoff, first_s=0.01, longest_s=0.05))
    registry, learner = ModelRegistry(), CountingLearner()
    registry.publish(1, NETWORKS)
    with structlog.testing.capture_logs() as said, served(store, registry) as remote:
        loop = Loop(training(remote, learner, lambda: tmp_path) if kind == "trainer" else labelling(remote))
        wait_until(lambda: len(loop.turns) > 5)
        store.error = error
        wait_until(lambda: told(said) or not loop.alive())
        seen = len(loop.turns)
        wait_until(lambda: len(loop.turns) >= seen + 2 or not loop.alive())
        assert loop.alive(), loop.error
        assert len(told(said)) == 1
        store.error = None
        wait_until(lambda: told(said, "info"))
        store.error = error
        wait_until(lambda: len(told(said)) == 2)
        loop.stop()
    assert loop.error is None


def test_roles_go_on_with_the_new_networks_of_a_server_that_lost_its_old_ones(store, tmp_path):
    lost, learner = tmp_path / "models", CountingLearner()
    ModelRegistry(lost).publish(1, NETWORKS)
    (first,) = lost.iterdir()
    first.rename(lost / first.name.replace("v00000001", "v00004711"))

    def serve(port):
        return BackgroundServer(ServerConfig(port=port), Services((16, 16), lambda: store, ModelRegistry(lost)))

    with structlog.testing.capture_logs() as said, contextlib.ExitStack() as open_still:
        with serve(free_port()) as server:
            remote = open_still.enter_context(connect(server.address))
            trainer = Loop(training(remote, learner, lambda: tmp_path, publish_every_s=0.2))
            updater = Loop(labelling(remote))
            wait_until(lambda: updater.turns and updater.turns[-1].model_version > 4711)
        shutil.rmtree(lost)
        with serve(server.port):
            wait_until(lambda: updater.turns[-1].model_version in range(1, 4711))
            assert any(turn.published == 1 for turn in trainer.turns)  # though its step is far beyond
            trainer.stop()
            updater.stop()
    assert [line["version"] for line in said if line["event"].startswith("the server's networks count anew")] == [
        next(turn.model_version for turn in updater.turns if turn.model_version in range(1, 4711))
    ]


def test_a_server_that_stays_away_is_told_of_once_after_a_minute():
    now = [0.0]
    setback, away = retry.Setback("no networks are fetched", lambda: now[0]), ServerUnavailable("nobody answers")
    with structlog.testing.capture_logs() as said:
        for now[0] in (0.0, 30.0, 59.0):
            setback.bear(away)
        setback.over()
        for now[0] in (100.0, 159.0):
            setback.bear(away)
        assert told(said) == []
        for now[0] in (160.0, 170.0):
            setback.bear(away)
        assert told(said) == ["no networks are fetched; trying again"]
        setback.bear(StoreError("no disk"))
        setback.bear(away)
        setback.bear(StoreError("no disk"))
        assert len(told(said)) == 2
        setback.over()
    assert told(said, "info") == ["no longer: no networks are fetched"]


def test_who_is_told_to_stop_waits_no_longer():
    setback, started = retry.Setback("nothing works"), time.monotonic()
    for _ in range(8):
        setback.bear(StoreError("no room"))
    setback.wait(lambda: time.monotonic() > started + 0.2)
    assert not setback.ready()
    assert time.monotonic() < started + 5.0


@pytest.mark.parametrize("make", [training, labelling])
def test_a_role_that_never_could_is_told(store, make, tmp_path):
    class Refusing:
        def __getattr__(self, name):
            raise AccessDenied("arm-0 is a collector")

        @property
        def model(self):
            return self

        @property
        def replay(self):
            return self

    given = () if make is labelling else (CountingLearner(), lambda: tmp_path)
    with pytest.raises(AccessDenied, match="arm-0 is a collector"):
        list(itertools.islice(make(Refusing(), *given)(lambda: False), 50))


class TestFollower:
    def follow(self, answers, build=lambda snapshot: snapshot.version):
        class Source:
            def latest(self, newer_than=0):
                answer = next(answers)
                if isinstance(answer, Exception):
                    raise answer
                return answer if answer.version > newer_than else None

        ticks = itertools.count(step=100)
        return Follower(Source(), build, clock=lambda: float(next(ticks)))

    @pytest.fixture
    def snapshots(self):
        registry = ModelRegistry()
        registry.publish(0, b"networks")
        first = registry.latest()
        return [dataclasses.replace(first, version=version) for version in (1, 2, 3)]

    def test_it_keeps_what_it_has_while_the_server_fails(self, snapshots):
        faults = [StoreError("a"), StoreError("b"), RemoteError("internal"), CheckpointError("damaged on the way")]
        follower = self.follow(iter([snapshots[0], *faults, AccessDenied("a mistake in the list"), snapshots[1]]))
        with structlog.testing.capture_logs() as said:
            assert [follower.refresh() for _ in range(7)] == [True, *[False] * 5, True]
        assert [line["kind"] for line in said if line["log_level"] == "warning"] == [
            "StoreError",
            "RemoteError",
            "CheckpointError",
            "AccessDenied",
        ]
        assert follower.current == 2

    def test_later_networks_that_cannot_be_used_are_left_out_and_the_first_are_not(self, snapshots):
        def build(snapshot):
            if snapshot.version == bad:
                raise CheckpointError("of another size")
            return snapshot.version

        bad = 2
        follower = self.follow(iter([*snapshots[:2], snapshots[1], snapshots[2]]), build)
        with structlog.testing.capture_logs() as said:
            assert [follower.refresh() for _ in range(4)] == [True, False, False, True]
        assert told(said, "error") == ["newer networks are left out"]
        assert (follower.current, follower.version) == (3, 3)
        bad = 1
        with pytest.raises(CheckpointError, match="another size"):
            self.follow(iter(snapshots), build).refresh()


def test_an_episode_that_no_server_takes_does_not_end_its_collector(store, rng, tmp_path):
    bad, good = (make_episode(rng, 2) for _ in range(2))
    bad = dataclasses.replace(bad, metadata={"force_n": float("nan")})
    before = len(store)
    with (
        structlog.testing.capture_logs() as said,
        contextlib.closing(Spool(tmp_path)) as spool,
        served(store) as remote,
    ):
        outbox = Outbox(remote.replay, spool)
        for episode in (bad, good):
            outbox.keep(episode)
            outbox.flush()
        assert (outbox.waiting, outbox.set_aside) == (0, 1)
    assert len(store) == before + 1
    assert told(said, "error") == ["a finished episode is set aside: no server would take it"]
