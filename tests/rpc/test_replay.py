"""The remote store is the local store, over a real server on a free port."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from qtopt.errors import CorruptEpisode, EpisodeConflict, RemoteError, SchemaMismatch, ServerUnavailable, StoreFull
from qtopt.rpc import BackgroundServer, ClientConfig, ServerConfig, Services, codec, connect, replay
from qtopt.rpc.gen import replay_pb2, replay_pb2_grpc
from qtopt.types import Targets
from tests.episodes import make_episode
from tests.rpc.conftest import SIZE
from tests.rpc.stores import DictStore
from tests.rpc.test_codec import assert_same


def test_an_episode_arrives_unchanged_and_once(store, connection, episode):
    assert connection.replay.append(episode) is True
    assert connection.replay.append(episode) is False
    assert_same(store.episodes[episode.uuid], episode)


def test_errors_of_the_store_arrive_as_themselves(store, connection, rng):
    episode = make_episode(rng)
    connection.replay.append(episode)
    other = dataclasses.replace(episode, actions=make_episode(rng).actions)
    with pytest.raises(EpisodeConflict, match=episode.uuid):
        connection.replay.append(other)
    store.room = 1
    with pytest.raises(StoreFull, match="holds 1 episodes"):
        connection.replay.append(make_episode(rng))


def test_an_episode_of_another_image_size_is_refused(connection, rng):
    with pytest.raises(SchemaMismatch, match="found 32x32 pixels, expected 16x16"):
        connection.replay.append(make_episode(rng, size_px=32))


def test_a_damaged_episode_is_refused(store, connection, episode):
    message = codec.encode_episode(episode)
    message.rewards = message.rewards[:-1] + b"\x00"
    stub = replay_pb2_grpc.ReplayServiceStub(connection.replay._channel.grpc)
    with pytest.raises(CorruptEpisode, match=episode.uuid):
        connection.replay._channel.call(
            stub.AppendEpisode, replay_pb2.AppendEpisodeRequest(episode=message), "append", idempotent=False
        )
    assert not store.episodes


def test_from_transitions_to_labels(store, connection, rng):
    first = make_episode(rng, 3)
    connection.replay.append(first)
    drawn = connection.replay.sample_transitions(3, 1.0)
    assert_same(drawn, store.sample_transitions(3, 0.0))
    assert drawn.terminal.tolist() == [False, False, True]
    assert np.array_equal(drawn.next.image[0], first.images[1])
    connection.replay.put_targets(Targets(drawn.position, np.array([0.1, 0.2, 0.3], np.float32), 7))
    batch = connection.replay.sample_labelled(6, 1.0)
    assert_same(batch, store.sample_labelled(6, 0.0))
    assert batch.target.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.1, 0.2, 0.3])
    assert batch.model_version.tolist() == [7] * 6
    assert connection.replay.stats() == {"episodes": 1.0, "waiting_for": "nobody"}


def test_large_samples_come_in_several_calls(store, connection, rng, monkeypatch):
    monkeypatch.setattr(replay, "CHUNK_BYTES", 4 * 16 * 16 * 3)
    client = replay.ReplayClient(connection.replay._channel, (16, 16))
    connection.replay.append(make_episode(rng, 3))
    drawn = client.sample_transitions(10, 1.0)
    assert drawn.position.tolist() == [0, 1, 2, 0, 0, 1, 2, 0, 0, 1]
    assert drawn.next.image.shape == (10, 16, 16, 3)
    client.put_targets(Targets(drawn.position, np.full(10, 0.5, np.float32), 1))
    assert len(client.sample_labelled(9, 1.0)) == 9


def test_many_labels_come_in_several_calls_and_are_refused_in_one(store, connection):
    many = Targets(np.arange(10_000), np.full(10_000, 0.5, np.float32), 1)
    connection.replay.put_targets(many)
    assert len(store.targets) == 10_000
    stub = replay_pb2_grpc.ReplayServiceStub(connection.replay._channel.grpc)
    for count, refusal in (
        (4097, "found 4097 labels, expected at most 4096 in one call"),
        (200_000, "found a request of"),
    ):
        labels = replay_pb2.PutTargetsRequest(
            targets=codec.encode_targets(Targets(np.arange(count) + 50_000, np.zeros(count, np.float32), 1))
        )
        with pytest.raises(SchemaMismatch, match=refusal):
            connection.replay._channel.call(stub.PutTargets, labels, "put targets", idempotent=False)
    assert len(store.targets) == 10_000


def test_an_empty_store_says_so_when_the_time_is_up_and_is_asked_once(connection, store):
    start = time.monotonic()
    with pytest.raises(ServerUnavailable, match="start a collector"):
        connection.replay.sample_transitions(2, 0.3)
    assert 0.3 <= time.monotonic() - start < 15.0


def test_waiting_samplers_do_not_keep_appends_out(connection, rng):
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(len(connection.replay.sample_transitions(2, 20.0))))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert connection.replay.append(make_episode(rng))
    for thread in threads:
        thread.join(10.0)
    assert got == [2] * 12


def test_many_clients_at_once_store_every_episode_once(store, server, rng):
    episodes = [make_episode(rng, 2) for _ in range(60)]
    fresh = []

    def send(mine):
        with connect(server.address, SIZE) as own:
            fresh.extend(own.replay.append(episode) for episode in mine)

    threads = [threading.Thread(target=send, args=(episodes[index % 4 :: 2],)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert set(store.episodes) == {episode.uuid for episode in episodes}
    assert sum(fresh) == 60
    assert len(fresh) > 60


@pytest.mark.parametrize(("count", "timeout_s"), [(0, 1.0), (1, -1.0)])
def test_senseless_samples_are_refused(connection, count, timeout_s):
    with pytest.raises(SchemaMismatch, match="sample: found"):
        connection.replay.sample_transitions(count, timeout_s)


def test_a_server_refuses_senseless_samples_too(connection):
    stub = replay_pb2_grpc.ReplayServiceStub(connection.replay._channel.grpc)
    for request in (
        replay_pb2.SampleRequest(count=0, timeout_s=1.0),
        replay_pb2.SampleRequest(count=1, timeout_s=float("nan")),
        replay_pb2.SampleRequest(count=10**6, timeout_s=1.0),
    ):
        with pytest.raises(SchemaMismatch, match="sample: found"):
            connection.replay._channel.call(stub.SampleLabelled, request, "sample")


def test_a_fault_of_the_store_stays_on_the_server(connection, store, episode, caplog):
    def broken(arrived, digest):
        raise KeyError("internal detail")

    store.append = broken
    with pytest.raises(RemoteError, match="internal error") as caught:
        connection.replay.append(episode)
    assert "internal detail" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "internal detail" in caplog.text


@pytest.mark.parametrize(("jpeg", "error"), [(False, 0), (True, 3)])
def test_large_images_arrive_unchanged_or_as_jpeg_nearly_so(rng, jpeg, error):
    store = DictStore()
    episode = make_episode(rng, 2, size_px=160)
    episode.images[:] = np.linspace(0, 255, 160, dtype=np.uint8)[:, None]
    with (
        BackgroundServer(ServerConfig(port=0), Services((160, 160), lambda: store)) as server,
        connect(ClientConfig(address=server.address, jpeg=jpeg), (160, 160)) as connection,
    ):
        connection.replay.append(episode)
    arrived = store.episodes[episode.uuid].images
    assert np.abs(arrived.astype(int) - episode.images.astype(int)).max() <= error
