"""What deploy/ starts must exist: every command parses; the secrets that it makes let a client in and no other."""

import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from qtopt import cli
from qtopt.errors import QtOptError
from qtopt.rpc import ClientConfig, ServerConfig, Services
from qtopt.rpc.background import BackgroundServer
from qtopt.rpc.connection import connect

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SHELL_VALUE = re.compile(r"\$\$?(?:\(\([^()]*\)\)|\([^()]*\)|\{[^}]*\}|\w+)")


def container_commands():
    """Yields the argument lists of all containers."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        if service["image"] == "qtopt":
            yield service["command"]
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for manifest in yaml.safe_load_all(file.read_text()):
            if manifest["kind"] in ("Deployment", "StatefulSet"):
                for container in manifest["spec"]["template"]["spec"]["containers"]:
                    yield container["args"]


def unit_commands():
    """Yields what the systemd units start."""
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        yield [re.search(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE).group(1)]


def without_shell(text):
    """Returns ``text`` with 1 wherever a shell would put a value, innermost values first."""
    while (shorter := SHELL_VALUE.sub("1", text)) != text:
        text = shorter
    return text


def words_of(arguments):
    """Returns the words after ``qtopt``, with 1 wherever a shell would put a value."""
    text = without_shell(arguments[-1].replace("%i", "1").replace("%H", "h").replace("%%", "%"))
    if "qtopt " not in text:
        return [without_shell(word) for word in arguments]
    return shlex.split(re.search(r"qtopt ([^']+)", text).group(1))


@pytest.mark.parametrize("arguments", [*container_commands(), *unit_commands()], ids=lambda each: words_of(each)[0])
def test_commands_have_the_flags_that_they_are_given(arguments):
    command, *flags = words_of(arguments)
    flags = ["--server=h:50051" if flag == "--server=1" else flag for flag in flags]
    module = importlib.import_module(f"qtopt.apps.{command}")
    config = cli.parse(module.Config, command, flags)
    assert type(config) is module.Config


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    directory = tmp_path_factory.mktemp("secrets") / "made"
    subprocess.run(["bash", str(DEPLOY / "make-secrets.sh"), str(directory), "localhost", "127.0.0.1"], check=True)
    return directory


@pytest.fixture(scope="module")
def port(secrets):
    def no_store():
        return None

    listen = ServerConfig(
        host="0.0.0.0",
        port=0,
        cert_file=secrets / "server.crt",
        key_file=secrets / "server.key",
        token_file=secrets / "token",
    )
    with BackgroundServer(listen, Services((16, 16), no_store)) as server:
        yield server.port


def test_secrets_let_a_client_in(secrets, port):
    config = ClientConfig(f"127.0.0.1:{port}", ca_file=secrets / "ca.crt", token_file=secrets / "token")
    with connect(config) as connection:
        assert connection.model.latest() is None


def test_a_wrong_token_stays_out(secrets, port, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    config = ClientConfig(
        f"127.0.0.1:{port}", ca_file=secrets / "ca.crt", token_file=wrong, connect_timeout_s=2.0, attempts=1
    )
    with pytest.raises(QtOptError, match="token"):
        connect(config)


def test_secrets_are_not_overwritten(secrets):
    again = subprocess.run(
        ["bash", str(DEPLOY / "make-secrets.sh"), str(secrets), "localhost"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1
    assert "exists" in again.stderr
