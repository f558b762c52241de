"""Nothing unprotected listens beyond loopback, and settings that cannot work say why."""

import pytest

from qtopt.errors import ConfigError
from qtopt.rpc import ClientConfig, ServerConfig
from qtopt.rpc.settings import is_loopback, join_address
from qtopt.rpc.tokens import read_token

PAIR = {"cert_file": "cert.pem", "key_file": "key.pem"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "[::1]", "localhost", "unix:/run/x.sock"])
def test_loopback_needs_nothing(host):
    assert is_loopback(host)
    assert ServerConfig(host=host).host == host


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "[::]", "10.0.0.5", "example.org", "", "128.0.0.1", "localhost.example"]
)
@pytest.mark.parametrize("given", [{}, PAIR, {"token_file": "token"}])
def test_beyond_loopback_half_the_protection_is_refused(host, given):
    with pytest.raises(ConfigError, match=r"found no --listen\."):
        ServerConfig(host=host, **given)


def test_what_is_missing_is_named_and_nothing_else():
    with pytest.raises(ConfigError, match=r"found no --listen\.client-ca-file or --listen\.token-file or both"):
        ServerConfig(host="0.0.0.0", **PAIR)
    with pytest.raises(ConfigError, match=r"found no --listen\.cert-file and --listen\.key-file, to speak TLS; qtopt"):
        ServerConfig(host="0.0.0.0", token_file="token")


@pytest.mark.parametrize("guard", [{"token_file": "token"}, {"client_ca_file": "ca.pem"}])
def test_beyond_loopback_with_tls_and_a_guard(guard):
    assert ServerConfig(host="0.0.0.0", **PAIR, **guard).address == "0.0.0.0:50051"


@pytest.mark.parametrize(
    "given",
    [{"port": -1}, {"port": 65536}, {"max_calls": 0}, {"cert_file": "c"}, {"key_file": "k"}, {"client_ca_file": "c"}],
)
def test_server_settings_that_cannot_work(given):
    with pytest.raises(ConfigError):
        ServerConfig(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"address": "localhost"},
        {"address": ":50051"},
        {"address": "host:0"},
        {"address": "host:99999"},
        {"address": "host:port"},
        {"connect_timeout_s": 0.0},
        {"call_timeout_s": -1.0},
        {"attempts": 0},
        {"cert_file": "c"},
        {"cert_file": "c", "key_file": "k"},
    ],
)
def test_client_settings_that_cannot_work(given):
    with pytest.raises(ConfigError):
        ClientConfig(**given)


def test_a_token_never_travels_in_the_clear():
    with pytest.raises(ConfigError, match="without TLS"):
        ClientConfig(address="10.0.0.5:50051", token_file="token")
    assert ClientConfig(address="[::1]:50051", token_file="token").host == "::1"


def test_addresses_with_brackets():
    assert join_address("::1", 5) == "[::1]:5"
    assert join_address("127.0.0.1", 5) == "127.0.0.1:5"
    assert join_address("unix:/x", 5) == "unix:/x"


@pytest.mark.parametrize("text", ["", "short", "sixteen letters and spaces", "ä" * 20])
def test_weak_tokens_are_refused(tmp_path, text):
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(ConfigError, match="qtopt certs client"):
        read_token(file)


def test_a_missing_token_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="absent cannot be read: No such file"):
        read_token(tmp_path / "absent")
