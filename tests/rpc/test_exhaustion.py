"""What one client, or nobody in particular, may take of a server: calls, memory, the event loop, threads, sessions."""

import json
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2

from qtopt.errors import RemoteError, SchemaMismatch, ServerUnavailable
from qtopt.legal import MAX_METADATA
from qtopt.rpc import BackgroundServer, Limits, ServerConfig, Services, codec, connect, inbox, policy
from qtopt.rpc.gen import policy_pb2, replay_pb2
from qtopt.rpc.inbox import SMALL_BYTES
from tests.episodes import make_episode
from tests.rpc.conftest import SIZE
from tests.rpc.secured import audit_in, client_of, listening, written
from tests.rpc.stores import DictStore, GatedStore
from tests.rpc.test_policy import DrawingPolicy, observations
from tests.waiting import wait_until

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
STATS = "/qtopt.v1.ReplayService/GetStats"
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
MANY = Limits(general_calls=4, strangers_calls=6)


@pytest.fixture
def serve(keys, tmp_path):
    """Starts servers with the keys' certificates and tokens, an audit log and a policy."""
    with ExitStack() as running:

        def start(store=None, **given):
            kept = audit_in(tmp_path)
            running.callback(kept.close)
            services = Services(SIZE, lambda: store or DictStore(), make_policy=DrawingPolicy, audit=kept)
            return running.enter_context(BackgroundServer(listening(tmp_path, **given), services)), services

        yield start


def bare(server, tmp_path, *, role=None):
    """Returns a connection of its own: with a role's certificate, or of a stranger."""
    own = tmp_path / "keys" / "clients" / f"a-{role}"
    authority = (tmp_path / "keys" / "server" / "ca.crt").read_bytes()
    pair = ((own / "client.key").read_bytes(), (own / "client.crt").read_bytes()) if role else ()
    credentials = grpc.ssl_channel_credentials(authority, *pair)
    options = [*OWN_CONNECTION, ("grpc.max_send_message_length", -1)]
    return grpc.secure_channel(f"127.0.0.1:{server.port}", credentials, options)


def watch(channel):
    return channel.unary_stream(WATCH)(b"", timeout=60.0)


def refused(services, code):
    count = services.metrics.registry.get_sample_value("qtopt_calls_total", {"method": "others", "code": code})
    return count or 0.0


@pytest.mark.parametrize("role", [None, "viewer"])
def test_who_watches_health_over_many_connections_shuts_out_nobody(serve, tmp_path, rng, role):
    """80 streams on a server for 48 calls: from a stranger, and from a viewer, who has its own calls besides."""
    kinds = {"certificates": role is not None}
    server, services = serve(max_calls=48, limits=MANY, **kinds)
    with ExitStack() as channels:
        lines = [channels.enter_context(bare(server, tmp_path, role=role)) for _ in range(8)]
        streams = [watch(line) for line in lines for _ in range(10)]
        wait_until(lambda: sum(stream.done() for stream in streams) == 76, 30.0)
        one_try = {"attempts": 1, "call_timeout_s": 10.0}
        with connect(replace(client_of(server, tmp_path, "viewer", **kinds), **one_try)) as viewer:
            assert viewer.replay.stats()["episodes"] == 0
        with connect(replace(client_of(server, tmp_path, "collector", **kinds), **one_try), SIZE) as collector:
            assert all(collector.replay.append(make_episode(rng, 1)) for _ in range(5))
        assert sum(stream.done() for stream in streams) == 76
    assert refused(services, "UNAVAILABLE") == 76
    lines = [line for line in written(tmp_path) if line["event"] == "refused"]
    assert 60 <= len(lines) <= 76  # the log takes so many of one kind at once
    assert {(line["what"], line.get("who")) for line in lines} == {(WATCH, role and f"a-{role}")}
    assert "expected at most 4" in lines[0]["why"]


def test_a_stream_ends_and_may_be_asked_for_again(serve, tmp_path):
    server, _ = serve(certificates=False, limits=Limits(stream_s=0.3, general_calls=1))
    with bare(server, tmp_path) as channel:
        for _ in range(2):
            answers = [health_pb2.HealthCheckResponse.FromString(each) for each in watch(channel)]
            assert [answer.status for answer in answers] == [health_pb2.HealthCheckResponse.SERVING]


def test_calls_beyond_those_of_all_clients_are_counted_and_logged_and_health_still_answers(serve, tmp_path, rng):
    store = GatedStore()
    server, services = serve(store, max_calls=2, certificates=False)
    config = replace(client_of(server, tmp_path, "collector", certificates=False), attempts=1)
    with connect(config) as busy, ThreadPoolExecutor(2) as threads, bare(server, tmp_path) as stranger:
        calls = [threads.submit(busy.replay.append, make_episode(rng, 1)) for _ in range(2)]
        wait_until(lambda: server._server.figures()["calls_inside_large"] == 2)
        with pytest.raises(ServerUnavailable, match="2 calls of all clients are under way, expected at most 2"):
            busy.monitor.report("collector/a", {})
        assert stranger.unary_unary(CHECK)(b"", timeout=5.0)
        store.gate.set()
        assert [call.result(30.0) for call in calls] == [True, True]
    labels = {"method": "MonitorService/Report", "code": "RESOURCE_EXHAUSTED"}
    assert services.metrics.registry.get_sample_value("qtopt_calls_total", labels) == 1
    assert [line["what"] for line in written(tmp_path) if line["event"] == "refused"] == [
        "/qtopt.v1.MonitorService/Report"
    ]


@pytest.mark.parametrize("method", [CHECK, WATCH, REFLECT, STATS, "/qtopt.v1.ReplayService/Handshake"])
def test_a_large_request_to_a_method_that_needs_none_is_refused_and_logged(serve, tmp_path, method):
    server, _ = serve(tokens=False, reflection=True)
    with bare(server, tmp_path, role="viewer") as channel:
        call = channel.stream_stream(method)
        field_1000 = b"\xc2\x3e\x80\x80\x80\x01" + bytes(2 << 20)  # which no message has: it would be parsed and kept
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([field_1000]), timeout=30.0))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    expected = (
        rf"{method.rpartition('/')[2]}: found a request of 2097158 bytes, expected at most {SMALL_BYTES}: .* less"
    )
    assert re.match(expected, caught.value.details())
    assert [(line["what"], line["who"]) for line in written(tmp_path)] == [(method, "a-viewer")]


def test_large_requests_to_a_method_that_needs_none_are_not_in_memory_together(tmp_path):
    command = [sys.executable, "-m", "tests.rpc.serve", "0", str(tmp_path / "store")]
    data = bytes(60 << 20)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline())
            memory = psutil.Process(server.pid).memory_info
            options = [*OWN_CONNECTION, ("grpc.max_send_message_length", -1)]
            with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
                before = most = memory().rss
                calls = [channel.unary_unary(STATS).future(data, timeout=100.0) for _ in range(12)]
                while not all(call.done() for call in calls):
                    most = max(most, memory().rss)
                    time.sleep(0.005)
                assert {call.code() for call in calls} == {grpc.StatusCode.FAILED_PRECONDITION}
        finally:
            server.kill()
    assert most - before < 400 << 20  # two at a time, each once in pieces and once whole; 720 MB were sent


def test_requests_that_do_not_come_hold_up_no_other_clients_small_ones(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(inbox, "_SLOW_S", 60.0)  # no place is lent meanwhile
    server, _ = serve(tokens=False)
    over = threading.Event()

    def nothing():
        over.wait(60.0)
        yield from ()

    with bare(server, tmp_path, role="viewer") as channel, bare(server, tmp_path, role="trainer") as other:
        stalled = [channel.stream_unary(STATS).future(nothing()) for _ in range(40)]
        wait_until(lambda: server._server._gate._inbox._small.held == 2)
        for _ in range(10):
            with pytest.raises(grpc.RpcError, match="client and server differ"):
                other.unary_unary("/qtopt.v1.ReplayService/Handshake")(b"", timeout=20.0)
        assert not any(call.done() for call in stalled)
        over.set()


def brackets(size):
    """Returns JSON that takes many times its length of memory."""
    return '{"x": [' + "[]," * (size // 3) + "0]}"


@pytest.mark.parametrize("method", ["BeginEpisode", "SelectAction"])
def test_a_generators_state_is_not_parsed_when_it_is_too_long(serve, tmp_path, method):
    server, _ = serve(tokens=False)
    with bare(server, tmp_path, role="collector") as channel:
        call = channel.unary_unary(f"/qtopt.v1.PolicyService/{method}")
        begin = policy_pb2.BeginEpisodeRequest(session="x", rng_json=policy._state(np.random.default_rng(1)))
        channel.unary_unary("/qtopt.v1.PolicyService/BeginEpisode")(begin.SerializeToString(), timeout=10.0)
        request = getattr(policy_pb2, f"{method}Request")(session="x", rng_json=brackets(900_000))
        with pytest.raises(grpc.RpcError) as caught:
            call(request.SerializeToString(), timeout=30.0)
    assert re.match(
        r"policy: found .* of 9\d+ characters, expected at most 4096: send that of a PCG64", caught.value.details()
    )


def test_metadata_are_not_parsed_when_they_are_too_long(connection, episode):
    message = codec.encode_episode(episode)
    message.metadata_json = brackets(3_000_000)
    message.digest = codec.episode_digest(message)
    channel = connection.replay._channel
    call = channel.grpc.unary_unary("/qtopt.v1.ReplayService/AppendEpisode")
    request = replay_pb2.AppendEpisodeRequest(episode=message).SerializeToString()
    with pytest.raises(SchemaMismatch, match=r"found JSON of 3\d+ characters, expected at most 1048576: store less"):
        channel.call(call, request, "append episode")
    assert len(json.dumps("x" * 1_000_000)) < MAX_METADATA
    assert connection.replay.append(replace(episode, metadata={"notes": "x" * 1_000_000}))


def test_the_threads_turns_are_the_clients_and_not_its_connections(serve, tmp_path):
    server, _ = serve()
    workers, turns = server._server._replay._quick, []
    run = workers.run
    workers.run = lambda work, client="": (turns.append(client), run(work, client))[1]
    for _ in range(3):
        with connect(client_of(server, tmp_path, "viewer")) as connection:
            connection.replay.stats()
    assert turns == ["viewer a-viewer"] * 3


def test_a_client_with_many_sessions_takes_nobody_elses(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(policy, "MAX_SESSIONS", 4)
    monkeypatch.setattr(policy, "MAX_SESSIONS_EACH", 3)
    server, _ = serve()
    seen = observations(0, 1)[0]
    with (
        connect(client_of(server, tmp_path, "collector")) as modest,
        connect(client_of(server, tmp_path, "evaluator")) as greedy,
    ):
        kept = modest.policy()
        kept.begin_episode(np.random.default_rng(1))
        many = [greedy.policy() for _ in range(10)]
        for each in many:
            each.begin_episode(np.random.default_rng(2))
        kept.select(seen)
        many[-3].select(seen)
        with pytest.raises(RemoteError, match="not known"):
            many[-4].select(seen)
        many[0]._session, many[0]._rng = kept._session, np.random.default_rng(3)
        with pytest.raises(RemoteError, match="not known"):
            many[0].select(seen)


def test_on_a_server_that_asks_nobody_sessions_last_over_connections_and_calls_to_health_are_a_hosts():
    limits = Limits(general_calls=3)
    services = Services(SIZE, DictStore, make_policy=DrawingPolicy)
    with BackgroundServer(ServerConfig(port=0, limits=limits), services) as server, ExitStack() as lines:
        with connect(server.address) as first:
            begun = first.policy()
            begun.begin_episode(np.random.default_rng(1))
        with connect(server.address) as second:
            begun._channel, begun._stub = second.policy()._channel, second.policy()._stub
            begun.select(observations(0, 1)[0])
        streams = [watch(lines.enter_context(grpc.insecure_channel(server.address, OWN_CONNECTION))) for _ in range(5)]
        wait_until(lambda: sum(stream.done() for stream in streams) == 2)
