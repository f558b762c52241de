"""Health as it is: looked for again and again, by service; and calls that cannot be read are refused clearly."""

import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qtopt.errors import SchemaMismatch
from qtopt.rpc import BackgroundServer, ClientConfig, ServerConfig, Services, connect, health
from qtopt.rpc.gen import replay_pb2
from qtopt.rpc.health import check_health
from tests.rpc.conftest import SIZE
from tests.rpc.stores import DictStore

REPLAY, MODEL, MONITOR = (f"qtopt.v1.{name}Service" for name in ("Replay", "Model", "Monitor"))


def becomes(server, expected, seconds=20.0):
    """Waits until the services have this health."""
    deadline = time.monotonic() + seconds
    while (found := check_health(ClientConfig(server.address), tuple(expected), 20.0)) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_a_full_disk_is_told_and_so_is_that_it_has_room_again(monkeypatch):
    monkeypatch.setattr(health, "LOOK_EVERY_S", 0.05)
    trouble = [None]
    services = Services(SIZE, DictStore, looks={"Replay": lambda: trouble[0]})
    with BackgroundServer(ServerConfig(port=0), services) as server:
        becomes(server, {"": "SERVING", REPLAY: "SERVING", MODEL: "SERVING"})
        trouble[0] = "the disk is nearly full"
        becomes(server, {"": "NOT_SERVING", REPLAY: "NOT_SERVING", MODEL: "SERVING", MONITOR: "SERVING"})
        value = services.metrics.registry.get_sample_value
        assert value("qtopt_serving", {"service": REPLAY}) == value("qtopt_serving", {"service": "all"}) == 0
        with connect(server.address) as connection:  # health is a judgement; the store itself decides what it takes
            assert connection.replay.stats()["episodes"] == 0
        trouble[0] = None
        becomes(server, {"": "SERVING", REPLAY: "SERVING"})


def test_what_cannot_be_looked_at_does_not_serve(monkeypatch):
    monkeypatch.setattr(health, "LOOK_EVERY_S", 0.05)
    broken = [True]

    def look():
        if broken:
            raise OSError("stale file handle")

    with BackgroundServer(ServerConfig(port=0), Services(SIZE, DictStore, looks={"Model": look})) as server:
        becomes(server, {"": "NOT_SERVING", MODEL: "NOT_SERVING", REPLAY: "SERVING"})
        broken.clear()
        becomes(server, {"": "SERVING"})


def test_a_disk_that_hangs_is_told(monkeypatch):
    monkeypatch.setattr(health, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(health, "_ANSWER_WITHIN_S", 0.5)
    answers = threading.Event()
    answers.set()
    services = Services(SIZE, DictStore, looks={"Model": lambda: None if answers.wait(20.0) else "never"})
    with BackgroundServer(ServerConfig(port=0), services) as server:
        becomes(server, {"": "SERVING"})
        answers.clear()
        becomes(server, {"": "NOT_SERVING", MODEL: "NOT_SERVING", MONITOR: "SERVING"})
        answers.set()
        becomes(server, {"": "SERVING", MODEL: "SERVING"})


def test_the_policy_service_serves_once_there_is_a_policy(monkeypatch):
    monkeypatch.setattr(health, "LOOK_EVERY_S", 0.05)
    services = Services(SIZE, DictStore, make_policy=lambda: None)
    published = services.registry
    services = Services(
        SIZE,
        DictStore,
        registry=published,
        make_policy=lambda: None,
        looks={"Policy": lambda: None if published.version else "no networks were published yet"},
    )
    with BackgroundServer(ServerConfig(port=0), services) as server:
        becomes(server, {"": "SERVING", "qtopt.v1.PolicyService": "NOT_SERVING"})
        published.publish(1, b"networks")
        becomes(server, {"qtopt.v1.PolicyService": "SERVING", "qtopt.v1.Unheard": "UNKNOWN"})


def test_those_who_watch_are_told_of_a_change(monkeypatch):
    monkeypatch.setattr(health, "LOOK_EVERY_S", 0.05)
    trouble = [None]
    services = Services(SIZE, DictStore, looks={"Replay": lambda: trouble[0]})
    with (
        BackgroundServer(ServerConfig(port=0), services) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        seen = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=REPLAY), timeout=20.0)
        assert next(seen).status == health_pb2.HealthCheckResponse.SERVING
        trouble[0] = "read-only"
        assert next(seen).status == health_pb2.HealthCheckResponse.NOT_SERVING
        seen.cancel()


@pytest.mark.parametrize("data", [b"\xff" * 10, b"\x0a\x05ab", b"\x08"])
def test_bytes_that_are_no_request_are_refused_as_such(connection, data):
    channel = connection.replay._channel
    with pytest.raises(SchemaMismatch, match="bytes that are no request"):
        channel.call(channel.grpc.unary_unary("/qtopt.v1.ReplayService/AppendEpisode"), data, "append")


def test_a_refusal_that_repeats_what_was_sent_still_arrives(connection):
    request = replay_pb2.HandshakeRequest()
    request.schema.action_fields.append("\N{SNOWMAN}" * 100_000)
    channel = connection.replay._channel
    call = channel.grpc.unary_unary("/qtopt.v1.ReplayService/Handshake")
    with pytest.raises(SchemaMismatch, match="client and server differ"):
        channel.call(call, request.SerializeToString(), "handshake")
