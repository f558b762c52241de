"""A real server on a free loopback port, and a connection to it."""

import pytest

from qtopt.rpc import BackgroundServer, ServerConfig, Services, connect
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
