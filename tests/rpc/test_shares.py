"""What one client with valid credentials may hold of a server: places, threads, answers that it does not read."""

import re
import threading
import time
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from qtopt.errors import AccessDenied, SchemaMismatch, ServerUnavailable
from qtopt.rpc import (
    BackgroundServer,
    ClientConfig,
    Limits,
    ModelRegistry,
    ServerConfig,
    Services,
    connect,
    inbox,
    knocks,
    replay,
)
from qtopt.rpc.gen import model_pb2, replay_pb2
from tests.episodes import make_episode
from tests.rpc.conftest import SIZE
from tests.rpc.secured import client_of, listening
from tests.rpc.stores import DictStore
from tests.rpc.test_policy import DrawingPolicy
from tests.waiting import wait_until

APPEND, DRAW = "/qtopt.v1.ReplayService/AppendEpisode", "/qtopt.v1.ReplayService/SampleTransitions"
STATS, LATEST = "/qtopt.v1.ReplayService/GetStats", "/qtopt.v1.ModelService/GetLatest"
# A connection of its own, which takes no more than HTTP/2's first 64 KiB of an answer that is not read.
OWN_CONNECTION = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1024),
]


@contextmanager
def serving(store, size=SIZE, limits=None, **more):
    config = ServerConfig(port=0, limits=limits or Limits())
    with BackgroundServer(config, Services(size, lambda: store, **more)) as server:
        yield server


def greedy(server):
    return grpc.insecure_channel(server.address, OWN_CONNECTION)


def figures(server):
    return server._server.figures()


def metric(services, name, **labels):
    return services.metrics.registry.get_sample_value(name, labels) or 0.0


def test_one_client_that_stalls_all_its_calls_leaves_the_others_their_places(rng, monkeypatch):
    """Its 64 appends send nothing, for longer than a place is lent after: the places lent are others' too."""
    monkeypatch.setattr(inbox, "_SLOW_S", 0.05)
    over = threading.Event()

    def nothing():
        over.wait(60.0)
        yield from ()

    with serving(DictStore()) as server, greedy(server) as channel, connect(server.address, SIZE) as other:
        stalled = [channel.stream_unary(APPEND).future(nothing()) for _ in range(64)]
        wait_until(lambda: figures(server)["calls_inside_large"] == 64)
        time.sleep(0.5)
        begun = time.monotonic()
        assert all(other.replay.append(make_episode(rng, 1)) for _ in range(3))
        assert time.monotonic() - begun < 5.0
        assert not any(call.done() for call in stalled)
        over.set()


class HungryStore(DictStore):
    """A store that never has as much as is asked for where that is much."""

    def __init__(self):
        super().__init__()
        self.waited_s = []

    def sample_transitions(self, count, timeout_s):
        if count > 100:
            time.sleep(timeout_s)
            self.waited_s.append(timeout_s)
            raise ServerUnavailable("labels are ahead of the trainer")
        return super().sample_transitions(count, timeout_s)


def draws(channel, count, timeout_s):
    request = replay_pb2.SampleRequest(count=4000, timeout_s=timeout_s).SerializeToString()
    return [channel.unary_unary(DRAW).future(request) for _ in range(count)]


def test_one_client_that_waits_for_many_samples_leaves_the_others_their_threads(rng):
    with serving(HungryStore()) as server, connect(server.address, SIZE) as other:
        assert other.replay.append(make_episode(rng, 3))
        with greedy(server) as channel:
            calls = draws(channel, 20, 3600.0)
            wait_until(lambda: figures(server)["calls_inside_transitions"] >= 2)
            for _ in range(3):
                begun = time.monotonic()
                assert len(other.replay.sample_transitions(2, 2.0)) == 2
                assert time.monotonic() - begun < 2.0
            assert not any(call.done() for call in calls)
        wait_until(lambda: figures(server)["calls_inside_transitions"] == 0, 5.0)  # with its client gone, a call ends


def test_a_call_waits_for_samples_for_a_limited_time_and_a_client_asks_again(rng, monkeypatch):
    monkeypatch.setattr(replay, "LONGEST_WAIT_S", 0.2)
    with serving(DictStore()) as server, connect(server.address, SIZE) as client, greedy(server) as channel:
        request = replay_pb2.SampleRequest(count=1, timeout_s=3600.0).SerializeToString()
        with pytest.raises(grpc.RpcError, match="start a collector"):
            channel.unary_unary(DRAW)(request, timeout=20.0)
        drawn = []
        thread = threading.Thread(target=lambda: drawn.append(client.replay.sample_transitions(2, 20.0)))
        thread.start()
        time.sleep(0.5)
        assert client.replay.append(make_episode(rng, 3))
        thread.join(20.0)
    assert len(drawn[0]) == 2


def unread(channel, count):
    """Returns calls for the networks whose answers, larger than an HTTP/2 window, nobody reads."""
    request = model_pb2.GetLatestRequest().SerializeToString()
    return [channel.unary_stream(LATEST)(request) for _ in range(count)]


def refused(calls):
    return [call for call in calls if call.done()]


def test_a_call_counts_until_its_answer_was_taken():
    registry = ModelRegistry()
    registry.publish(1, bytes(1 << 20))
    with serving(DictStore(), registry=registry) as server, connect(server.address, SIZE) as other:
        with greedy(server) as channel:
            calls = unread(channel, 80)
            wait_until(lambda: len(refused(calls)) == 16, 10.0)
            assert "64 calls of this client are under way" in refused(calls)[0].details()
            assert other.model.latest().version == 1
            time.sleep(0.3)
            assert len(refused(calls)) == 16
        wait_until(lambda: figures(server)["calls_inside_all"] == 0, 5.0)


def test_more_answers_than_a_client_reads_are_not_kept_for_it():
    registry = ModelRegistry()
    registry.publish(1, bytes(1 << 20))
    with (
        serving(DictStore(), limits=Limits(unsent_mb=8.0), registry=registry) as server,
        connect(server.address, SIZE) as other,
        greedy(server) as channel,
    ):
        calls = unread(channel, 20)
        wait_until(lambda: len(refused(calls)) == 13, 10.0)  # seven of a little more than 1 MiB are fewer than 8 MB
        assert "of answers that this client has not read" in refused(calls)[0].details()
        assert other.model.latest().version == 1
        read = [next(call) for call in calls if not call.done()]
        assert len(read) == 7
        wait_until(lambda: figures(server)["calls_inside_all"] == 0)
        assert len(channel.unary_unary(LATEST)(b"", timeout=5.0)) > 1 << 20


def test_more_answers_than_all_clients_read_are_not_kept_and_half_is_for_those_who_read():
    registry = ModelRegistry()
    registry.publish(1, bytes(1 << 20))
    with (
        serving(DictStore(), limits=Limits(unsent_all_mb=8.0), registry=registry) as server,
        connect(ClientConfig(server.address, attempts=20), SIZE) as other,
        ExitStack() as lines,
    ):
        calls = unread(lines.enter_context(greedy(server)), 20)
        wait_until(lambda: len(refused(calls)) == 17, 10.0)  # three of a little more than 1 MiB are fewer than 4 MB
        assert other.model.latest().version == 1
        calls += [call for _ in range(10) for call in unread(lines.enter_context(greedy(server)), 1)]
        wait_until(lambda: len(refused(calls)) == 23, 10.0)
        assert {call.code() for call in refused(calls)} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert "answers are on their way to all clients, expected at most 8000000" in refused(calls)[-1].details()
        assert other.replay.stats()["episodes"] == 0
        taken = threading.Timer(0.3, lambda: [next(call) for call in calls if not call.done()])
        taken.start()
        assert other.model.latest().version == 1  # tried again until there is room
        taken.join()


@pytest.mark.parametrize(("size_px", "most"), [(472, 100), (72, 4096)])
def test_a_sample_that_no_answer_can_hold_is_refused_before_it_is_drawn(size_px, most):
    store = HungryStore()
    with serving(store, (size_px, size_px)) as server, connect(server.address) as client:
        call = client.replay._channel.grpc.unary_unary(DRAW)
        request = replay_pb2.SampleRequest(count=most + 1, timeout_s=0.0).SerializeToString()
        with pytest.raises(SchemaMismatch, match=f"found count {most + 1}, expected 1 to {most}"):
            client.replay._channel.call(call, request, "sample")
        assert store.waited_s == []


@pytest.mark.parametrize(("method", "most"), [(APPEND, 6 << 20), ("/qtopt.v1.PolicyService/SelectAction", 2 << 20)])
def test_a_request_larger_than_the_stores_images_explain_is_dropped_unparsed(method, most):
    field_1000 = b"\xc2\x3e\x80\x80\x80\x1e" + bytes(60 << 20)  # of 60 MiB, which no message has
    with (
        serving(DictStore(), make_policy=DrawingPolicy) as server,
        greedy(server) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(method)(field_1000, timeout=30.0)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    found, expected = map(int, re.findall("[0-9]+", caught.value.details())[:2])
    assert found == len(field_1000)
    assert expected < most


def test_who_cannot_say_who_it_is_waits_for_its_refusals_and_the_others_do_not(keys, tmp_path, monkeypatch):
    monkeypatch.setattr(knocks, "PAUSE_S", 8.0)  # of which a call waits half at least
    services = Services(SIZE, DictStore)
    config = listening(tmp_path, certificates=False, limits=Limits(failures_per_s=1.0))
    authority = (tmp_path / "keys" / "server" / "ca.crt").read_bytes()
    with BackgroundServer(config, services) as server:
        address, credentials = f"127.0.0.1:{server.port}", grpc.ssl_channel_credentials(authority)
        with (
            grpc.secure_channel(address, credentials, OWN_CONNECTION) as channel,
            connect(client_of(server, tmp_path, "viewer", certificates=False)) as viewer,
        ):
            calls = [channel.unary_unary(STATS).future(b"", timeout=60.0) for _ in range(60)]
            wait_until(lambda: len(refused(calls)) >= 10)
            begun = time.monotonic()
            for _ in range(5):
                assert viewer.replay.stats()["episodes"] == 0
            assert time.monotonic() - begun < 3.5
            assert len(refused(calls)) < 15  # ten at once and one a second; the others wait
            assert {call.code() for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
    assert metric(services, "qtopt_refusals_total", reason="identity") == 60


def test_calls_that_a_role_may_not_make_count_for_their_client(keys, tmp_path):
    services = Services(SIZE, DictStore)
    config = listening(tmp_path, certificates=False, limits=Limits(calls_per_s=2.0))
    with (
        BackgroundServer(config, services) as server,
        connect(client_of(server, tmp_path, "viewer", certificates=False)) as viewer,
    ):
        for _ in range(30):
            with pytest.raises((AccessDenied, ServerUnavailable)):
                viewer.model.publish(1, b"x")
    assert metric(services, "qtopt_refusals_total", reason="role") < 15
    assert metric(services, "qtopt_refusals_total", reason="limits") > 15
