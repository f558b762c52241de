"""One server: health, reflection, models, figures, ports, start and stop."""

import random
import socket
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from qtopt.errors import ConfigError, RemoteError, SchemaMismatch, ServerUnavailable, StoreError
from qtopt.rpc import BackgroundServer, ClientConfig, ServerConfig, Services, connect, settings
from qtopt.rpc.gen import model_pb2, model_pb2_grpc, replay_pb2
from tests.ports import free_port
from tests.rpc.conftest import SIZE
from tests.rpc.slow import slow_link
from tests.rpc.stores import DictStore

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def health_of(channel, service=""):
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5.0).status


def test_models_are_published_and_fetched_by_version(connection):
    assert connection.model.latest() is None
    assert connection.model.publish(100, b"first") == 1
    assert connection.model.publish(100, b"first") == 1
    assert connection.model.publish(200, b"second" * 100_000) == 2
    snapshot = connection.model.latest()
    assert (snapshot.version, snapshot.step, snapshot.payload) == (2, 200, b"second" * 100_000)
    assert connection.model.latest(newer_than=2) is None


def test_a_client_that_waits_gets_the_new_model_at_once(connection):
    threading.Timer(0.2, lambda: connection.model.publish(1, b"new")).start()
    start = time.monotonic()
    assert connection.model.latest(0, wait_s=10.0).payload == b"new"
    assert time.monotonic() - start < 8.0
    assert connection.model.latest(1, wait_s=0.2) is None
    assert connection.model.latest(4711, wait_s=10.0).version == 1  # of a server before this one


def test_networks_come_over_a_slow_link_in_the_time_that_they_need(server, connection):
    """The policy that ships, over 560 kbit/s: for longer than any other call may take, and than keepalive waits."""
    payload = random.Random(0).randbytes(900_000)
    with slow_link(server.port, 70_000) as port, connect(f"127.0.0.1:{port}", SIZE) as far:
        assert far.model.latest() is None
        connection.model.publish(1, payload)
        assert far.model.latest().payload == payload
        assert far.model.latest(1) is None


def test_networks_are_published_over_a_slow_link(server, connection):
    payload = random.Random(0).randbytes(300_000)
    with (
        slow_link(server.port, 200_000) as port,
        connect(ClientConfig(address=f"127.0.0.1:{port}", call_timeout_s=1.0), SIZE) as far,
    ):
        assert far.model.publish(1, payload) == 1
    assert connection.model.latest().payload == payload


def test_of_large_networks_the_size_is_told_to_who_asks_for_it_and_others_get_them(server, connection):
    connection.model.publish(1, bytes(1000))
    with grpc.insecure_channel(server.address) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)
        earlier, told, enough = (
            stub.GetLatest(model_pb2.GetLatestRequest(most_bytes=most), timeout=5.0) for most in (0, 999, 1000)
        )
    assert (len(earlier.snapshot.payload), earlier.left_out_bytes) == (1000, 0)
    assert (told.HasField("snapshot"), told.left_out_bytes) == (False, 1000)
    assert (len(enough.snapshot.payload), enough.left_out_bytes) == (1000, 0)


def test_a_server_from_before_sizes_were_told_answers_with_the_networks(server, connection, monkeypatch):
    """It does not know ``most_bytes``, as if it were not there."""
    monkeypatch.setattr("qtopt.rpc.model._AT_ONCE_BYTES", 0)
    connection.model.publish(1, bytes(900_000))
    assert len(connection.model.latest().payload) == 900_000


def test_networks_beyond_the_message_limit_are_refused_at_once(connection):
    with pytest.raises(RemoteError, match=r"larger than max .* fewer or smaller arrays") as caught:
        connection.model.publish(1, bytes(settings.MESSAGE_LIMIT_BYTES + 1))
    assert not isinstance(caught.value, ServerUnavailable)
    assert connection.model.publish(1, bytes(40 << 20)) == 1


def test_figures_of_all_roles(connection):
    connection.monitor.report("trainer", {"loss": 0.25})
    connection.monitor.report("collector/sim-0", {"grasps": 4}, {"policy": "scripted"})
    figures = connection.monitor.figures()
    assert set(figures) == {"trainer", "collector/sim-0"}
    assert figures["trainer"].figures == {"loss": 0.25}
    assert figures["collector/sim-0"].texts == {"policy": "scripted"}
    assert 0.0 <= figures["trainer"].age_s < 5.0
    with pytest.raises(SchemaMismatch, match="report"):
        connection.monitor.report("", {})


def test_another_schema_is_refused_with_every_difference(server):
    with pytest.raises(SchemaMismatch, match="client 64x48, server 16x16"):
        connect(server.address, (64, 48))
    with connect(server.address) as connection:
        assert connection.image_size == SIZE


def test_a_client_of_another_release_is_refused_by_the_server_too(server, monkeypatch):
    theirs = replay_pb2.Schema(schema_version=2, action_fields=["x"], package_version="0.2.0")
    monkeypatch.setattr("qtopt.rpc.connection.local_schema", lambda size: theirs)
    monkeypatch.setattr("qtopt.rpc.connection.check_schemas", lambda ours, found: None)
    with pytest.raises(SchemaMismatch, match=r"client 2, server 1.*the server first.*client x; server world"):
        connect(server.address)


def test_nobody_there_is_said_within_the_deadline():
    start = time.monotonic()
    with pytest.raises(ServerUnavailable, match=r"no server answered at 127\.0\.0\.1:\d+ within 0\.5 s: start `qtopt"):
        connect(ClientConfig(address=f"127.0.0.1:{free_port()}", connect_timeout_s=0.5))
    assert time.monotonic() - start < 15.0


def test_a_port_that_hears_but_never_answers_is_said_within_the_deadline():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        start = time.monotonic()
        with pytest.raises(ServerUnavailable, match="no server answered"):
            connect(ClientConfig(address=f"127.0.0.1:{deaf.getsockname()[1]}", connect_timeout_s=0.5))
        assert time.monotonic() - start < 15.0


def test_a_client_may_come_before_its_server():
    port = free_port()
    servers = []
    timer = threading.Timer(
        0.5, lambda: servers.append(BackgroundServer(ServerConfig(port=port), Services(SIZE, DictStore)))
    )
    timer.start()
    try:
        with connect(f"127.0.0.1:{port}", SIZE) as connection:
            assert connection.replay.stats()["episodes"] == 0
    finally:
        timer.join()
        servers[0].stop()


def test_health_is_true_while_opening_serving_and_after():
    release, inside = threading.Event(), threading.Event()

    def open_slowly():
        inside.set()
        release.wait(10.0)
        return DictStore()

    port = free_port()
    started = []
    thread = threading.Thread(
        target=lambda: started.append(BackgroundServer(ServerConfig(port=port), Services(SIZE, open_slowly)))
    )
    thread.start()
    try:
        assert inside.wait(10.0)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert health_of(channel) == NOT_SERVING
            assert health_of(channel, "qtopt.v1.ReplayService") == NOT_SERVING
            with connect(f"127.0.0.1:{port}") as connection, pytest.raises(ServerUnavailable, match="still opening"):
                connection.replay.stats()
            release.set()
            thread.join(10.0)
            for service in ("", "qtopt.v1.ReplayService", "qtopt.v1.ModelService", "qtopt.v1.MonitorService"):
                assert health_of(channel, service) == SERVING
            with pytest.raises(grpc.RpcError):
                health_of(channel, "qtopt.v1.PolicyService")
    finally:
        release.set()
        thread.join(10.0)
        started[0].stop()


def test_reflection_describes_the_services(server):
    with grpc.insecure_channel(server.address) as channel:
        described = ProtoReflectionDescriptorDatabase(channel)
        services = set(described.get_services())
        assert {"qtopt.v1.ReplayService", "qtopt.v1.ModelService", "qtopt.v1.MonitorService"} <= services
        assert "grpc.health.v1.Health" in services
        file = described.FindFileContainingSymbol("qtopt.v1.ReplayService")
        assert [each.name for each in file.service[0].method][:2] == ["Handshake", "AppendEpisode"]


def test_reflection_can_be_turned_off():
    with (
        BackgroundServer(ServerConfig(port=0, reflection=False), Services(SIZE, DictStore)) as server,
        grpc.insecure_channel(server.address) as channel,
        pytest.raises(grpc.RpcError),
    ):
        list(ProtoReflectionDescriptorDatabase(channel).get_services())


def test_a_port_in_use_is_named_before_the_store_is_opened(server):
    opened = []
    with pytest.raises(ConfigError, match=f"port {server.port} is in use by another process"):
        BackgroundServer(ServerConfig(port=server.port), Services(SIZE, lambda: opened.append(1)))
    assert not opened


def test_a_store_that_does_not_open_ends_the_server():
    def broken():
        raise StoreError("store.json: found format 9, expected 1")

    port = free_port()
    with pytest.raises(StoreError, match="format 9"):
        BackgroundServer(ServerConfig(port=port), Services(SIZE, broken))
    BackgroundServer(ServerConfig(port=port), Services(SIZE, DictStore)).stop()


def test_stopping_lets_a_running_append_end_and_frees_the_port(rng, episode):
    store = DictStore()
    entered = threading.Event()
    append = store.append

    def slow(arrived, digest):
        entered.set()
        time.sleep(0.4)
        return append(arrived, digest)

    store.append = slow
    server = BackgroundServer(ServerConfig(port=free_port()), Services(SIZE, lambda: store))
    with connect(server.address, SIZE) as connection:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(connection.replay.append(episode)))
        thread.start()
        assert entered.wait(5.0)
        server.stop(5.0)
        thread.join(5.0)
        assert answers == [True]
    server.stop()
    with BackgroundServer(ServerConfig(port=server.port), Services(SIZE, DictStore)) as again:
        assert again.port == server.port


def test_stopping_does_not_wait_for_samplers_and_leaves_no_thread_in_the_store():
    store = DictStore()
    server = BackgroundServer(ServerConfig(port=0), Services(SIZE, lambda: store))
    with connect(server.address, SIZE) as connection:
        ended = []

        def sample():
            with pytest.raises(ServerUnavailable):
                connection.replay.sample_transitions(2, 60.0)
            ended.append(True)

        thread = threading.Thread(target=sample)
        thread.start()
        time.sleep(0.2)
        start = time.monotonic()
        server.stop(0.1)
        assert time.monotonic() - start < 15.0
        assert not [each for each in threading.enumerate() if each.name.startswith("rpc-")]
        thread.join(5.0)
        assert ended == [True]


def test_a_closed_connection_says_so(connection):
    connection.close()
    connection.close()
    with pytest.raises(RemoteError, match="connect again"):
        connection.replay.stats()


def test_a_socket_file_works_too(tmp_path):
    address = f"unix:{tmp_path}/server.sock"
    with BackgroundServer(ServerConfig(host=address), Services(SIZE, DictStore)) as server:
        assert server.address == address
        with connect(address, SIZE) as connection:
            assert connection.replay.stats()["episodes"] == 0
