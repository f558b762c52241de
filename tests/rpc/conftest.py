"""A real server on a free loopback port, and a connection to it."""

import pytest

from qtopt.apps.certs import Keys
from qtopt.rpc import BackgroundServer, ServerConfig, Services, connect
from qtopt.rpc.roles import Role, make_identity
from tests.rpc.secured import NAMES
from tests.rpc.stores import DictStore

SIZE = (16, 16)


@pytest.fixture
def store():
    return DictStore()


@pytest.fixture
def server(store):
    with BackgroundServer(ServerConfig(port=0), Services(SIZE, lambda: store)) as running:
        yield running


@pytest.fixture
def connection(server):
    with connect(server.address, SIZE) as connected:
        yield connected


@pytest.fixture
def keys(tmp_path):
    made = Keys(tmp_path / "keys")
    made.make_authority()
    made.make_server(NAMES, 10.0)
    for role in Role:
        made.make_client(make_identity(f"a-{role}", str(role)), 10.0)
    return made
