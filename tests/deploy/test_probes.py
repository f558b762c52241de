"""The probes of deploy/ ask a real server, with TLS and certificates, and can tell alive from serving."""

import runpy

import numpy as np
import pytest

from qtopt import cli
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.rpc import BackgroundServer, ServerConfig, Services
from tests.deploy.manifests import DEPLOY, compose_services, container, workloads

SCRIPT = DEPLOY / "health_probe.py"
SERVER = container(workloads()["qtopt-server"])
COMMANDS = {name: SERVER[f"{name}Probe"]["exec"]["command"] for name in ("startup", "liveness", "readiness")}
COMMANDS["compose"] = compose_services()["server"]["healthcheck"]["test"]
MOUNTS = {"/probe/": "", "/run/secrets/ca": "ca.crt", "/run/secrets/probe_cert": "client.crt"}
MOUNTS |= {"/run/secrets/probe_key": "client.key"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    directory = tmp_path_factory.mktemp("secrets")
    for line in ("authority", "server --names server qtopt-server", "client --role viewer --name probe"):
        assert cli.main(["certs", *line.split(), "--directory", str(directory)]) == 0
    return directory


def probe(command, address, client):
    """Returns the exit code of a probe of deploy/ whose files are those of ``client``."""
    words = command[command.index("/opt/qtopt/health_probe.py") + 1 :]
    for inside, here in MOUNTS.items():
        words = [word.replace(inside, f"{client}/{here}") for word in words]
    return runpy.run_path(str(SCRIPT))["main"]([address, *words[1:]])


def serve(secrets, trouble):
    files = secrets / "server"
    config = ServerConfig(
        port=0,
        cert_file=files / "server.crt",
        key_file=files / "server.key",
        client_ca_file=files / "ca.crt",
        token_file=files / "tokens",
    )
    store = MemoryStore(StoreFormat.for_images(16), rng=np.random.default_rng(0))
    return BackgroundServer(config, Services((16, 16), lambda: store, looks={"Replay": lambda: trouble}))


def test_the_script_is_where_the_probes_look_for_it():
    assert "COPY deploy/health_probe.py ./" in (DEPLOY / "Dockerfile").read_text().splitlines()
    assert "WORKDIR /opt/qtopt" in (DEPLOY / "Dockerfile").read_text().splitlines()


@pytest.mark.parametrize(("trouble", "ready"), [(None, 0), ("the disk is full", 1)])
def test_a_server_whose_disk_is_full_is_alive_and_not_ready(secrets, trouble, ready):
    client = secrets / "clients" / "probe"
    with serve(secrets, trouble) as server:
        codes = {name: probe(command, server.address, client) for name, command in COMMANDS.items()}
    assert codes == {"compose": ready, "readiness": ready, "startup": 0, "liveness": 0}


def test_nobody_who_answers_is_told_apart(secrets, capsys):
    assert probe(COMMANDS["liveness"], "127.0.0.1:1", secrets / "clients" / "probe") == 2
    assert "127.0.0.1:1" in capsys.readouterr().err
