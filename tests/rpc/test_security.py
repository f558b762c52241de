"""TLS, bearer token and client certificates with certificates made on the spot."""

import subprocess
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qtopt.errors import ConfigError, RemoteError, ServerUnavailable
from qtopt.rpc import BackgroundServer, ClientConfig, ServerConfig, Services, connect
from tests.rpc.conftest import SIZE
from tests.rpc.stores import DictStore

TOKEN = "0123456789abcdef0123456789abcdef"


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_authority(folder, name):
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(
        folder,
        "req",
        "-x509",
        *key,
        "-keyout",
        f"{name}.key",
        "-out",
        f"{name}.pem",
        "-days",
        "1",
        "-subj",
        f"/CN={name}",
    )


def make_certificate(folder, name, authority):
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(folder, "req", "-new", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    (folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,DNS:replay.test,IP:127.0.0.1\n")
    signer = ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial"]
    openssl(
        folder,
        "x509",
        "-req",
        "-in",
        f"{name}.csr",
        *signer,
        "-out",
        f"{name}.pem",
        "-days",
        "1",
        "-extfile",
        f"{name}.ext",
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    make_authority(folder, "ca")
    make_authority(folder, "stranger")
    make_certificate(folder, "server", "ca")
    make_certificate(folder, "robot", "ca")
    make_certificate(folder, "intruder", "stranger")
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "wrong").write_text("f" * 32)
    return folder


def client_of(server, keys, **given):
    config = ClientConfig(address=f"127.0.0.1:{server.port}", ca_file=keys / "ca.pem", connect_timeout_s=2.0)
    return replace(config, **given)


@pytest.fixture
def guarded(keys):
    config = ServerConfig(
        host="0.0.0.0", port=0, cert_file=keys / "server.pem", key_file=keys / "server.key", token_file=keys / "token"
    )
    with BackgroundServer(config, Services(SIZE, DictStore)) as server:
        yield server


def test_tls_and_token_let_a_client_in(guarded, keys, episode):
    with connect(client_of(guarded, keys, token_file=keys / "token"), SIZE) as connection:
        assert connection.replay.append(episode)
        assert connection.model.publish(1, b"weights") == 1


def test_without_or_with_a_wrong_token_a_client_is_told(guarded, keys):
    for given in ({}, {"token_file": keys / "wrong"}):
        with pytest.raises(RemoteError, match="no valid bearer token") as caught:
            connect(client_of(guarded, keys, **given))
        assert not isinstance(caught.value, ServerUnavailable)
        assert TOKEN not in str(caught.value)


def test_every_service_but_health_asks_for_the_token(guarded, keys):
    credentials = grpc.ssl_channel_credentials((keys / "ca.pem").read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{guarded.port}", credentials) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5.0)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for method in ("qtopt.v1.ModelService/GetLatest", "qtopt.v1.MonitorService/GetFigures", "qtopt.v1.No/Such"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/{method}")(b"", timeout=5.0)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        reflect = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as caught:
            list(reflect(iter([b""]), timeout=5.0))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_client_in_the_clear_or_with_the_wrong_authority_gets_nowhere(guarded, keys):
    plain = ClientConfig(address=f"127.0.0.1:{guarded.port}", connect_timeout_s=0.5)
    wrong = client_of(guarded, keys, ca_file=keys / "stranger.pem", connect_timeout_s=0.5)
    for config in (plain, wrong):
        with pytest.raises(ServerUnavailable, match="both sides must agree about TLS"):
            connect(config)


def test_client_certificates_instead_of_a_token(keys, episode):
    config = ServerConfig(
        host="0.0.0.0",
        port=0,
        cert_file=keys / "server.pem",
        key_file=keys / "server.key",
        client_ca_file=keys / "ca.pem",
    )
    with BackgroundServer(config, Services(SIZE, DictStore)) as server:
        robot = {"cert_file": keys / "robot.pem", "key_file": keys / "robot.key"}
        with connect(client_of(server, keys, **robot, server_name="replay.test"), SIZE) as connection:
            assert connection.replay.append(episode)
        intruder = {"cert_file": keys / "intruder.pem", "key_file": keys / "intruder.key"}
        for given in ({}, intruder):
            with pytest.raises(ServerUnavailable):
                connect(client_of(server, keys, **given, connect_timeout_s=0.5))


def test_files_that_are_missing_or_no_certificates_are_named(keys, tmp_path):
    absent = ServerConfig(port=0, cert_file=tmp_path / "absent.pem", key_file=keys / "server.key")
    with pytest.raises(ConfigError, match=r"absent\.pem cannot be read"):
        BackgroundServer(absent, Services(SIZE, DictStore))
    (tmp_path / "junk.pem").write_text("junk")
    junk = ServerConfig(port=0, cert_file=tmp_path / "junk.pem", key_file=keys / "server.key")
    with pytest.raises(ConfigError, match="cannot listen"):
        BackgroundServer(junk, Services(SIZE, DictStore))
    with pytest.raises(ConfigError, match="absent cannot be read"):
        connect(ClientConfig(token_file=tmp_path / "absent"))


def test_an_address_of_another_machine_is_named(keys):
    config = ServerConfig(
        host="192.0.2.1",  # reserved for documentation: nobody's
        port=0,
        cert_file=keys / "server.pem",
        key_file=keys / "server.key",
        token_file=keys / "token",
    )
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0: Cannot assign"):
        BackgroundServer(config, Services(SIZE, DictStore))
