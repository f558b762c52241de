"""Collection over the simulated cell, with and without a server that answers."""

import contextlib
import itertools
import threading
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import structlog

from qtopt.agent.exploration import ScriptedPolicy
from qtopt.errors import AccessDenied, ConfigError, CorruptEpisode, SchemaMismatch, ServerUnavailable, StoreFull
from qtopt.loops.collect import CollectLoopConfig, Follower, collect
from qtopt.loops.episode import run_episode
from qtopt.loops.outbox import Outbox
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.rpc import BackgroundServer, ClientConfig, ServerConfig, Services, connect
from qtopt.rpc.roles import make_identity
from qtopt.rpc.tokens import TokenEntry, token_digest
from qtopt.specs import EPISODE_SPECS
from qtopt.types import Behaviour, EpisodeEnd, Outcome
from robot_bridge.spool import Spool
from tests.episodes import make_episode
from tests.loops.conftest import SIZE_PX


class SwitchedSink:
    """A sink that answers only while ``on``."""

    def __init__(self, sink):
        self.sink = sink
        self.on = True

    def append(self, episode):
        if not self.on:
            raise ServerUnavailable("nobody answers")
        return self.sink.append(episode)


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


def run(environment, sink, spool, models, *, episodes, seed=0, clock=None, name="sim-0"):
    now = iter(np.arange(0.0, 1e6, 1.0))  # every look at the clock is a second later, so that no backoff lasts
    return collect(
        environment,
        ScriptedPolicy(),
        Follower(models, lambda snapshot: ScriptedPolicy()),
        Outbox(sink, spool, clock=clock or (lambda: float(next(now)))),
        np.random.default_rng(seed),
        config=CollectLoopConfig(episodes=episodes),
        name=name,
        facts={"cell": "a"},
    )


def test_a_name_that_no_server_takes_ends_before_anything_moves(spool):
    with pytest.raises(SchemaMismatch, match="a name of 257 characters, expected at most 256: give a shorter one"):
        next(run(None, None, spool, None, episodes=1, name="x" * 257))
    assert len(spool) == spool.set_aside == 0


def test_an_episode_is_whole_and_legal(environment, rng):
    ran = run_episode(
        environment, ScriptedPolicy(), rng, stop=lambda: False, clock=lambda: 0.0, seed=5, policy_version=3
    )
    episode = ran.episode
    for spec in EPISODE_SPECS:
        spec.validate(getattr(episode, spec.name))
    assert len(episode.images) == len(episode) + 1
    assert episode.end is EpisodeEnd.TERMINATED
    assert episode.outcome in (Outcome.SUCCESS, Outcome.NOTHING_GRASPED, Outcome.DROPPED)
    assert episode.policy_version == 3
    assert set(episode.behaviour.tolist()) <= {Behaviour.SCRIPTED, Behaviour.RANDOM}
    assert episode.rewards[:-1].max() < 0 <= episode.rewards[-1]
    assert len(ran.values) == len(episode)


def test_the_same_seed_gives_the_same_episode(environment):
    first, second = (
        run_episode(
            environment, ScriptedPolicy(), np.random.default_rng(1), stop=lambda: False, clock=lambda: 0.0, seed=9
        ).episode
        for _ in range(2)
    )
    assert first.uuid != second.uuid
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.actions, second.actions)


def test_an_unfinished_episode_is_dropped(environment, rng):
    assert run_episode(environment, ScriptedPolicy(), rng, stop=lambda: True, clock=lambda: 0.0) is None


def test_episodes_arrive_with_the_policy_that_was_held(environment, memory, spool, models):
    models.publish(7, b"weights")
    turns = list(run(environment, memory, spool, models, episodes=3))
    assert [turn.waiting for turn in turns] == [0] * 3
    assert [turn.policy_version for turn in turns] == [1] * 3
    stored = list(memory.episodes())
    assert [episode.uuid for episode in stored] == [turn.episode.uuid for turn in turns]
    assert stored[0].collector == "sim-0"
    assert stored[0].metadata["cell"] == "a"
    assert stored[0].metadata["object_set"] == "train"


def test_what_nobody_took_waits_and_arrives_once_in_order(environment, memory, spool, models):
    sink = SwitchedSink(memory)
    turns = run(environment, sink, spool, models, episodes=6)
    sink.on = False
    seen = [next(turns) for _ in range(3)]
    assert [turn.waiting for turn in seen] == [1, 2, 3]
    assert len(memory) == 0
    sink.on = True
    seen += list(turns)
    assert seen[-1].waiting == 0
    assert [episode.uuid for episode in memory.episodes()] == [turn.episode.uuid for turn in seen]


def test_a_token_that_is_refused_later_on_does_not_stop_the_arm(environment, memory, spool, tmp_path):
    listed, token = tmp_path / "tokens", tmp_path / "token"
    token.write_text("a-token-of-the-test")
    expires = datetime.now(UTC) + timedelta(days=1)
    good = TokenEntry(make_identity("arm-0", "collector"), expires, token_digest(token.read_text())).line()
    listed.write_text(good)
    guarded = ServerConfig(port=0, token_file=listed)
    with BackgroundServer(guarded, Services((SIZE_PX, SIZE_PX), lambda: memory)) as server:
        config = ClientConfig(address=server.address, token_file=token)
        with connect(config) as remote:
            turns = run(environment, remote.replay, spool, remote.model, episodes=6)
            seen = [next(turns)]
            assert seen[0].waiting == 0
            for mistake in ("# nobody\n", good.replace(" collector ", " viewer ")):
                listed.write_text(mistake)
                seen += [next(turns), next(turns)]
                assert seen[-1].waiting > 0
            with pytest.raises(AccessDenied):
                connect(config).replay.append(seen[0].episode)  # who begins with it is told at once
            listed.write_text(good)
            seen += list(turns)
            outbox, deadline = Outbox(remote.replay, spool), time.monotonic() + 20
            while len(spool) and time.monotonic() < deadline:  # the server takes the list anew when it looks at it next
                with contextlib.suppress(AccessDenied):
                    outbox.flush()
                time.sleep(0.05)
    assert len(spool) == 0
    assert [episode.uuid for episode in memory.episodes()] == [turn.episode.uuid for turn in seen]


def test_a_role_that_never_could_deliver_is_told(environment, memory, spool, models):
    class Refusing:
        def append(self, episode):
            raise AccessDenied("arm-0 is a viewer")

    with pytest.raises(AccessDenied):
        list(run(environment, Refusing(), spool, models, episodes=3))


def test_a_full_disk_makes_the_arm_wait_and_nothing_is_dropped(environment, memory, models, tmp_path):
    with contextlib.closing(Spool(tmp_path / "small", max_bytes=3 * 20 * SIZE_PX**2 * 3)) as spool:
        sink = SwitchedSink(memory)
        sink.on = False
        turns = run(environment, sink, spool, models, episodes=12)
        found = []
        arm = threading.Thread(target=lambda: found.extend(turns), daemon=True)
        with structlog.testing.capture_logs() as said:
            arm.start()
            deadline = time.monotonic() + 30
            while not any("waits until there is room" in line["event"] for line in said):
                assert time.monotonic() < deadline, said
                time.sleep(0.02)
        held = len(spool)
        time.sleep(0.5)
        assert len(spool) == held < 12
        assert len(memory) == 0
        sink.on = True
        arm.join(60)
        assert len(spool) == 0
    assert [episode.uuid for episode in memory.episodes()] == [turn.episode.uuid for turn in found]
    assert len(found) == 12


def test_told_to_stop_while_there_is_no_room_it_says_that_an_episode_is_lost(environment, memory, models, tmp_path):
    with contextlib.closing(Spool(tmp_path / "none", max_bytes=10)) as spool:
        outbox = Outbox(memory, spool)
        ran = run_episode(environment, ScriptedPolicy(), np.random.default_rng(0), stop=lambda: False, clock=time.time)
        with pytest.raises(StoreFull, match="0 episodes take 0 bytes of 10 allowed"):
            outbox.keep(ran.episode, stop=lambda: True)


def test_an_episode_that_is_refused_is_set_aside_and_collection_goes_on(
    environment, memory, spool, models, tmp_path, monkeypatch
):
    uuids = iter(["0" * 32, "0" * 32, "1" * 32])
    monkeypatch.setattr("qtopt.loops.episode.new_episode_uuid", lambda: next(uuids))
    first = list(run(environment, memory, spool, models, episodes=1))
    models.publish(7, b"weights")
    again = list(run(environment, memory, spool, models, episodes=2))
    assert again[0].episode.uuid == first[0].episode.uuid
    assert [turn.waiting for turn in again] == [0, 0]
    assert len(memory) == 2
    assert len(list((tmp_path / "spool" / "quarantine").iterdir())) == 1


def test_collection_outlives_a_real_server(environment, spool, models):
    store = MemoryStore(StoreFormat.for_images(SIZE_PX))
    services = Services((SIZE_PX, SIZE_PX), lambda: store)
    with BackgroundServer(ServerConfig(port=0), services) as first:
        port = first.port
        connection = connect(ClientConfig(first.address, call_timeout_s=2.0, attempts=1))
        turns = run(environment, connection.replay, spool, connection.model, episodes=6)
        assert next(turns).waiting == 0
    with connection:
        away = [next(turns) for _ in range(3)]  # the first of them may have been on its way when the server stopped
        assert [turn.waiting for turn in away[1:]] in ([1, 2], [2, 3])
        with BackgroundServer(ServerConfig(port=port), services):
            back = list(turns)
            outbox = Outbox(connection.replay, spool)
            deadline = time.monotonic() + 30
            while len(spool) and time.monotonic() < deadline:
                outbox.flush()
                time.sleep(0.05)
    assert len(spool) == 0
    assert len(store) == 1 + len(away) + len(back) == 6


def test_an_episode_that_a_server_never_takes_does_not_block_the_others(rng, spool, tmp_path):
    class Picky(MemoryStore):
        def append(self, episode, digest=None):
            if episode.uuid == bad.uuid:
                raise CorruptEpisode(f"episode {bad.uuid}: damaged on the way")
            return super().append(episode, digest)

    bad, *good = [make_episode(rng, 2) for _ in range(4)]
    store, now = Picky(StoreFormat.for_images(16)), itertools.count(step=100)
    with (
        BackgroundServer(ServerConfig(port=0), Services((16, 16), lambda: store)) as server,
        connect(server.address) as remote,
        structlog.testing.capture_logs() as said,
    ):
        outbox = Outbox(remote.replay, spool, clock=lambda: float(next(now)))  # no backoff lasts
        for episode in (bad, *good):
            outbox.keep(episode)
        while outbox.waiting:
            assert len(said) < 30, said
            outbox.flush()
    assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in good]
    assert [each.name[-44:-12] for each in (tmp_path / "spool" / "quarantine").iterdir()] == [bad.uuid]
    assert outbox.set_aside == 1
    waits = [line for line in said if line["event"] == "episodes wait on the disk"]
    assert len(waits) == 9
    assert all(bad.uuid in line["error"] for line in waits)


def test_it_is_said_when_what_waited_was_delivered(rng, spool):
    sink, now = SwitchedSink(MemoryStore(StoreFormat.for_images(16))), itertools.count(step=100)
    outbox = Outbox(sink, spool, clock=lambda: float(next(now)))
    with structlog.testing.capture_logs() as said:
        for sink.on in (True, False, False, True, True):
            outbox.keep(make_episode(rng, 2))
            outbox.flush()
    told = [(line["event"], line["log_level"]) for line in said if line["log_level"] != "debug"]
    waits, over = (
        ("episodes wait on the disk", "warning"),
        ("the episodes that waited on the disk are delivered", "info"),
    )
    assert told == [waits, waits, over]
    assert next(line for line in said if line["event"] == over[0])["waited_s"] > 0


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="refresh_every_s is -1"):
        CollectLoopConfig(refresh_every_s=-1)
