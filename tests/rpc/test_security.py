"""TLS, client certificates, tokens, roles, limits and the audit log, on a server that really has them."""

import socket
import ssl
import stat
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from qtopt.apps.certs import Keys
from qtopt.errors import AccessDenied, ConfigError, NotAuthenticated, ServerUnavailable
from qtopt.rpc import BackgroundServer, ClientConfig, Limits, ModelRegistry, ServerConfig, Services, connect
from qtopt.rpc import audit as audit_module
from qtopt.rpc.doorkeeper import read_connections
from qtopt.rpc.gen import model_pb2, monitor_pb2, policy_pb2, replay_pb2
from qtopt.rpc.roles import ROLES, make_identity
from tests.rpc.conftest import SIZE
from tests.rpc.secured import NAMES, audit_in, client_of, listening, written
from tests.rpc.stores import DictStore, GatedStore
from tests.waiting import wait_until


@pytest.fixture
def guarded(keys, tmp_path):
    kept = audit_in(tmp_path)
    with BackgroundServer(listening(tmp_path), Services(SIZE, DictStore, audit=kept)) as server:
        yield server
    kept.close()


def test_every_method_has_its_roles():
    described = [module.DESCRIPTOR for module in (replay_pb2, model_pb2, monitor_pb2, policy_pb2, health_pb2)]
    services = [
        service for file in [*described, reflection_pb2.DESCRIPTOR] for service in file.services_by_name.values()
    ]
    methods = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert methods == set(ROLES)
    assert {method for method, roles in ROLES.items() if None in roles} == {
        method for method in methods if method.startswith("/grpc.health.v1.Health/")
    }


def test_each_role_does_what_it_is_for_and_is_in_the_audit_log(guarded, tmp_path, episode):
    with connect(client_of(guarded, tmp_path, "collector"), SIZE) as collector:
        assert collector.replay.append(episode)
        assert collector.model.latest() is None
        collector.monitor.report("collector/a", {"grasps": 1})
        with pytest.raises(AccessDenied, match="a-collector is a collector, and Publish is for trainer"):
            collector.model.publish(1, b"weights")
    with connect(client_of(guarded, tmp_path, "trainer")) as trainer:
        assert trainer.model.publish(1, b"weights") == 1
        with pytest.raises(AccessDenied, match="AppendEpisode is for collector"):
            trainer.replay.append(episode)
    with connect(client_of(guarded, tmp_path, "viewer")) as viewer:
        assert viewer.replay.stats()["episodes"] == 1
        assert set(viewer.monitor.figures()) == {"collector/a"}
        with pytest.raises(AccessDenied, match="GetLatest is for"):
            viewer.model.latest()
    lines = written(tmp_path)
    assert [line["event"] for line in lines] == ["appended", "refused", "published", "refused", "refused"]
    assert lines[0]["episode"] == episode.uuid
    assert (lines[0]["who"], lines[0]["role"]) == ("a-collector", "collector")
    assert lines[0]["peer"].startswith("127.0.0.1:")
    assert lines[1]["what"] == "/qtopt.v1.ModelService/Publish"
    assert lines[2]["version"] == 1
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_who_waits_is_not_refused_and_who_keeps_the_server_waiting_is(keys, tmp_path):
    audit = audit_in(tmp_path)
    limits = Limits(request_s=0.5)
    with BackgroundServer(listening(tmp_path, limits=limits), Services(SIZE, DictStore, audit=audit)) as server:
        with connect(client_of(server, tmp_path, "trainer")) as trainer, pytest.raises(ServerUnavailable):
            trainer.replay.sample_labelled(4, 0.1)
        with connect(client_of(server, tmp_path, "updater")) as updater, pytest.raises(ServerUnavailable):
            updater.replay.sample_transitions(4, 0.1)
        own = tmp_path / "keys" / "clients" / "a-updater"
        files = [(own / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt")]
        metadata = [("authorization", f"Bearer {(own / 'token').read_text().strip()}")]
        ended = threading.Event()
        with grpc.secure_channel(f"127.0.0.1:{server.port}", grpc.ssl_channel_credentials(*files)) as channel:
            late = channel.stream_unary("/qtopt.v1.ReplayService/PutTargets")
            with pytest.raises(grpc.RpcError, match="send it faster"):
                late((b"" for _ in range(1) if ended.wait(10.0)), metadata=metadata, timeout=10.0)
            ended.set()
    audit.close()
    (line,) = written(tmp_path)
    assert (line["who"], line["what"]) == ("a-updater", "/qtopt.v1.ReplayService/PutTargets")
    assert "the request had not come 0.5 s after its call began" in line["why"]


def test_a_token_of_one_client_is_no_good_over_the_connection_of_another(guarded, tmp_path):
    stolen = tmp_path / "keys" / "clients" / "a-trainer" / "token"
    with pytest.raises(NotAuthenticated, match=r"token is that of the trainer a-trainer, the certificate .* a-viewer"):
        connect(replace(client_of(guarded, tmp_path, "viewer"), token_file=stolen))
    assert written(tmp_path)[-1]["event"] == "refused"
    assert stolen.read_text().strip() not in (tmp_path / "audit.jsonl").read_text()


def test_a_token_is_asked_for_too(guarded, tmp_path):
    with pytest.raises(NotAuthenticated, match="no bearer token came"):
        connect(client_of(guarded, tmp_path, "viewer", tokens=False))
    assert written(tmp_path)[-1]["who"] == "a-viewer"  # as its certificate says


def test_a_certificate_of_another_authority_is_named_as_the_likely_cause(guarded, tmp_path):
    other = Keys(tmp_path / "other")
    other.make_authority()
    other.make_client(make_identity("a-viewer", "viewer"), 10.0)
    theirs = tmp_path / "other" / "clients" / "a-viewer"
    good = replace(client_of(guarded, tmp_path, "viewer"), connect_timeout_s=1.0)
    for wrong, message in (
        ({"cert_file": theirs / "client.crt", "key_file": theirs / "client.key"}, "certificates are the likely cause"),
        ({"cert_file": None, "key_file": None}, "certificates are the likely cause"),
        ({"ca_file": theirs / "ca.crt"}, "does not come from the authority of"),
        ({"address": f"127.0.0.2:{guarded.port}"}, "one for other names"),
    ):
        with pytest.raises(ServerUnavailable, match=message):
            connect(replace(good, **wrong))


def test_a_revoked_and_a_renewed_token_take_effect_at_once(guarded, keys, tmp_path):
    config = client_of(guarded, tmp_path, "viewer")
    with connect(config) as connection:
        assert connection.replay.stats()
        keys.make_client(make_identity("a-viewer", "viewer"), 10.0)  # the client's token file is replaced as well
        assert connection.replay.stats()
        with structlog.testing.capture_logs() as said:
            keys.revoke("a-viewer")
            with pytest.raises(NotAuthenticated, match="is not known here, or expired, revoked"):
                connection.replay.stats()
    assert [line["files"] for line in said if "in use from now on" in line["event"]] == [[str(keys.token_list)]]
    refused = written(tmp_path)[-1]
    assert (refused["event"], refused["who"], refused["role"]) == ("refused", "a-viewer", "viewer")


def test_an_expired_token_says_so(keys, tmp_path):
    listed = keys.tokens()
    keys.token_list.write_text(
        "".join(replace(e, expires=datetime.now(UTC) - timedelta(1)).line() + "\n" for e in listed)
    )
    with (
        BackgroundServer(listening(tmp_path, certificates=False), Services(SIZE, DictStore)) as server,
        pytest.raises(NotAuthenticated, match="has expired on"),
    ):
        connect(client_of(server, tmp_path, "viewer", certificates=False))


def test_tokens_alone_and_certificates_alone(keys, tmp_path):
    for kinds in ({"certificates": False}, {"tokens": False}):
        with (
            BackgroundServer(listening(tmp_path, **kinds), Services(SIZE, DictStore)) as server,
            connect(client_of(server, tmp_path, "viewer", **kinds)) as connection,
        ):
            assert connection.replay.stats()["episodes"] == 0
            with pytest.raises(AccessDenied):
                connection.model.publish(1, b"x")


def test_every_service_but_health_asks_who_calls(keys, tmp_path):
    with BackgroundServer(listening(tmp_path, certificates=False), Services(SIZE, DictStore)) as server:
        authority = (tmp_path / "keys" / "server" / "ca.crt").read_bytes()
        with grpc.secure_channel(f"127.0.0.1:{server.port}", grpc.ssl_channel_credentials(authority)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            serving = health_pb2.HealthCheckResponse.SERVING
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0).status == serving
            assert next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=5.0)).status == serving
            with pytest.raises(grpc.RpcError) as caught:
                stub.Check(health_pb2.HealthCheckRequest(service="no.such"), timeout=5.0)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            for method in [*ROLES, "/qtopt.v1.No/Such"]:
                if "Health" in method or "Reflection" in method:
                    continue
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(method)(b"", timeout=5.0)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            reflect = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            with pytest.raises(grpc.RpcError) as caught:
                list(reflect(iter([b""]), timeout=5.0))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_new_certificate_is_taken_without_a_restart_and_half_of_one_is_not(guarded, keys, tmp_path):
    address = ("127.0.0.1", guarded.port)
    own, client = tmp_path / "keys" / "server", tmp_path / "keys" / "clients" / "a-viewer"

    def shown():
        context = ssl.create_default_context(cafile=str(client / "ca.crt"))
        context.load_cert_chain(client / "client.crt", client / "client.key")
        raw = socket.create_connection(address, 10.0)
        with context.wrap_socket(raw, server_hostname="localhost") as line:
            return line.getpeercert(binary_form=True)

    first, key = shown(), (own / "server.key").read_bytes()
    keys.make_server(NAMES, 20.0)
    new_key = (own / "server.key").read_bytes()
    (own / "server.key").write_bytes(key)
    with structlog.testing.capture_logs() as said:
        assert shown() == first
        assert "does not fit" in said[-1]["error"]
        (own / "server.key").write_bytes(new_key)
        assert shown() != first
        assert str(own / "server.crt") in said[-1]["files"]
    with connect(client_of(guarded, tmp_path, "viewer")) as connection:
        assert connection.replay.stats()["episodes"] == 0


def test_files_that_are_left_aside_show_in_the_metrics_though_nobody_calls(keys, tmp_path):
    services, own = Services(SIZE, DictStore), tmp_path / "keys" / "server"

    def left_aside():
        value_of = services.metrics.registry.get_sample_value
        return {what: value_of("qtopt_secrets_left_aside", {"what": what}) for what in ("tokens", "certificates")}

    with BackgroundServer(listening(tmp_path), services):
        assert left_aside() == {"tokens": 0, "certificates": 0}
        listed, key = keys.token_list.read_bytes(), (own / "server.key").read_bytes()
        keys.token_list.write_text("half of a li")
        assert left_aside() == {"tokens": 1, "certificates": 0}
        (own / "server.key").unlink()
        assert left_aside() == {"tokens": 1, "certificates": 1}
        keys.token_list.write_bytes(listed)
        (own / "server.key").write_bytes(key)
        assert left_aside() == {"tokens": 0, "certificates": 0}


def test_a_client_whose_certificate_has_expired_goes_on_when_it_is_renewed(keys, tmp_path):
    seconds = 8.0
    brief = listening(tmp_path, tokens=False, limits=Limits(connection_age_s=0.2))
    with BackgroundServer(brief, Services(SIZE, DictStore)) as server:
        keys.make_client(make_identity("a-viewer", "viewer"), seconds / 86400)
        config = replace(client_of(server, tmp_path, "viewer", tokens=False), attempts=1)
        with connect(config) as connection:
            assert connection.replay.stats()["episodes"] == 0
            wait_until(lambda: _refused(connection))
            assert list(keys.renew(1.0, 10.0)) == [str(config.cert_file.parent)]
            assert connection.replay.stats()["episodes"] == 0


def _refused(connection):
    try:
        connection.replay.stats()
    except ServerUnavailable:
        return True
    return False


def test_a_call_under_way_ends_over_the_connection_that_it_began_on(keys, tmp_path, episode):
    store, answers = GatedStore(), []
    with BackgroundServer(listening(tmp_path), Services(SIZE, lambda: store)) as server:
        config = client_of(server, tmp_path, "collector")
        with connect(config) as connection:
            call = threading.Thread(target=lambda: answers.append(connection.replay.append(episode)))
            call.start()
            wait_until(lambda: store.begun)
            before = open_connections(server)
            keys.make_client(make_identity("a-collector", "collector"), 10.0)
            connection.monitor.report("collector/a", {"grasps": 1})
            assert before < open_connections(server)
            store.gate.set()
            call.join(30.0)
            assert answers == [True]
            wait_until(lambda: open_connections(server).isdisjoint(before))
            connection.monitor.report("collector/a", {"grasps": 2})
        key = config.key_file.read_bytes()
        keys.make_client(make_identity("a-collector", "collector"), 10.0)
        with connect(config) as connection:
            config.key_file.write_bytes(key)  # half of a pair: the good one stays
            connection.monitor.report("collector/a", {"grasps": 3})


def open_connections(server):
    return {peer for peer, is_open in read_connections(server.port).items() if is_open}


def test_one_client_may_not_take_everything(keys, tmp_path):
    few = listening(tmp_path, limits=Limits(calls_per_s=2.0, calls_at_once=2))
    with BackgroundServer(few, Services(SIZE, DictStore)) as server:
        greedy = replace(client_of(server, tmp_path, "viewer"), attempts=1)
        with connect(greedy) as connection, connect(client_of(server, tmp_path, "trainer")) as other:
            with pytest.raises(ServerUnavailable, match="more than 2 calls a second of this client"):
                [connection.replay.stats() for _ in range(50)]
            assert other.model.latest() is None


def test_what_is_refused_tells_nothing_of_the_servers_disk(tmp_path):
    registry = ModelRegistry(tmp_path / "deep" / "models")
    with BackgroundServer(ServerConfig(port=0), Services(SIZE, DictStore, registry=registry)) as server:
        for file in (tmp_path / "deep").rglob("*"):
            file.rmdir()
        with connect(server.address) as connection, pytest.raises(Exception, match="cannot be written") as caught:
            connection.model.publish(1, b"weights")
        assert str(tmp_path) not in str(caught.value)
        assert "written to models: No such file" in str(caught.value)


def test_bytes_that_are_no_request_are_refused_with_a_reason(server):
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/qtopt.v1.ReplayService/AppendEpisode")(b"\xff" * 9, timeout=10.0)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "no request of this call" in caught.value.details()


def test_files_that_are_missing_or_no_certificates_are_named(keys, tmp_path):
    good = listening(tmp_path)
    (tmp_path / "junk.pem").write_text("junk")
    for wrong, message in (
        ({"cert_file": tmp_path / "absent.pem"}, r"absent\.pem cannot be read"),
        ({"cert_file": tmp_path / "junk.pem"}, "holds no PEM certificate"),
        ({"key_file": tmp_path / "keys" / "authority" / "ca.key"}, "does not fit"),
        ({"token_file": tmp_path / "junk.pem"}, "line 1: expected `name role expiry hash`"),
    ):
        with pytest.raises(ConfigError, match=message):
            BackgroundServer(replace(good, **wrong), Services(SIZE, DictStore))
    with pytest.raises(ConfigError, match="absent cannot be read"):
        connect(ClientConfig(token_file=tmp_path / "absent"))


def test_an_expired_certificate_is_named_where_it_is_used(keys, tmp_path):
    keys.make_client(make_identity("old", "viewer"), -1.0)
    own = tmp_path / "keys" / "clients" / "old"
    config = ClientConfig(ca_file=own / "ca.crt", cert_file=own / "client.crt", key_file=own / "client.key")
    with pytest.raises(ConfigError, match=r"expired on .* qtopt certs renew"):
        connect(config)


def test_an_address_of_another_machine_is_named(keys, tmp_path):
    config = replace(listening(tmp_path), host="192.0.2.1")  # reserved for documentation: nobody's
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0: Cannot assign"):
        BackgroundServer(config, Services(SIZE, DictStore))


def test_a_collector_cannot_push_out_the_past_with_long_names(guarded, tmp_path, episode):
    with connect(client_of(guarded, tmp_path, "collector"), SIZE) as collector:
        assert collector.replay.append(replace(episode, collector="\x01" * 4_500_000))
    (line,) = written(tmp_path)
    assert line["collector"] == "\x01" * 200 + "... cut, of 4500000 characters"
    assert (tmp_path / "audit.jsonl").stat().st_size < 4096
    assert not list(tmp_path.glob("audit.jsonl.*"))


def test_an_episode_that_is_known_is_not_written_again_without_end(guarded, tmp_path, episode):
    with connect(client_of(guarded, tmp_path, "collector"), SIZE) as collector:
        assert [collector.replay.append(episode) for _ in range(200)] == [True] + [False] * 199
        assert collector.replay.append(replace(episode, uuid="0" * 32))
    lines = written(tmp_path)
    assert [line["is_new"] for line in lines[:2]] == [True, False]
    assert 60 < len(lines) < 80
    assert lines[-1]["is_new"]


def test_strangers_of_many_addresses_do_not_push_out_what_clients_did(tmp_path):
    audit, arm = audit_in(tmp_path), make_identity("arm-0", "collector")
    audit.refused(arm, "[2001:db8:9::1]:1", "Publish", "before")
    for host in range(20_000):  # of one network
        audit.refused(None, f"[2001:db8::{host % 0x10000:x}]:1", "GetStats", "why")
    of_one = len(written(tmp_path)) - 1
    for network in range(20_000):
        for _ in range(2):
            audit.refused(None, f"[2001:db8:1:{network:x}::1]:1", "GetStats", "why")
    for host in range(20_000):  # a client, with a certificate, is counted by its name wherever it comes from
        audit.refused(arm, f"[2001:db8:2:{host:x}::1]:1", "GetStats", "why")
    audit.refused(arm, "[2001:db8:9::1]:1", "Publish", "after")
    audit.close()
    lines = written(tmp_path)
    assert 60 <= of_one < 70
    assert len([line for line in lines if "who" not in line]) < 700
    assert 60 <= len([line for line in lines if line.get("who") == "arm-0" and line["what"] == "GetStats"]) < 70
    assert [line["why"] for line in lines if line["what"] == "Publish"] == ["before", "after"]


def test_what_strangers_are_not_written_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_module, "STRANGERS_AT_ONCE", 3)
    monkeypatch.setattr(audit_module, "_PER_S", 2.0)
    audit = audit_in(tmp_path)
    for host in range(5):
        audit.refused(None, f"10.0.0.{host}:1", "GetStats", "why")
    time.sleep(0.7)
    audit.refused(None, "10.0.1.1:1", "GetStats", "why")
    audit.close()
    assert [line.get("strangers_not_written_before") for line in written(tmp_path)] == [None, None, None, 2]


def test_knocking_without_end_does_not_fill_the_log(tmp_path):
    audit = audit_in(tmp_path)
    for port in range(1000):
        audit.refused(None, f"10.0.0.7:{port}", "GetStats", "why\n" * 1000)
    audit.refused(None, "10.0.0.8:1", "GetStats", "why")
    audit.close()
    lines = written(tmp_path)
    assert 60 <= len(lines) < 70
    assert lines[-1]["peer"] == "10.0.0.8:1"
    assert max(len(line["why"].partition("... cut, of")[0]) for line in lines) == 500
