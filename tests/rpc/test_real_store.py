"""The project's own store behind the server: a remote one draws what a local one draws."""

import numpy as np
import pytest

from qtopt.errors import ServerUnavailable
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.rpc import BackgroundServer, ServerConfig, Services, connect
from qtopt.types import Targets
from tests.episodes import make_episode
from tests.rpc.conftest import SIZE
from tests.rpc.test_codec import assert_same


def make_store():
    return MemoryStore(StoreFormat.for_images(SIZE[0]), rng=np.random.default_rng(3))


@pytest.fixture
def remote():
    store = make_store()
    with (
        BackgroundServer(ServerConfig(port=0), Services(SIZE, lambda: store)) as server,
        connect(server.address, SIZE) as connection,
    ):
        yield connection.replay
    store.close()


def test_remote_and_local_stores_agree(remote, rng):
    local = make_store()
    for steps in (1, 5, 20):
        episode = make_episode(rng, steps)
        assert local.append(episode) is remote.append(episode) is True
        assert local.append(episode) is remote.append(episode) is False
    ours, theirs = (store.sample_transitions(64, 1.0) for store in (local, remote))
    assert_same(ours, theirs)
    values = rng.random(64, dtype=np.float32)
    for store in (local, remote):
        store.put_targets(Targets(ours.position, values, 5))
    left, right = (store.sample_labelled(32, 1.0) for store in (local, remote))
    for name in ("position", "action", "tool_pose", "target", "model_version"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    assert_same(left.observation, right.observation)
    figures, remote_figures = local.stats(), remote.stats()
    assert set(figures) == set(remote_figures)
    local.close()


def test_an_empty_store_says_what_is_missing(remote):
    with pytest.raises(ServerUnavailable, match="found 0 transitions"):
        remote.sample_transitions(4, 0.7)
    with pytest.raises(ServerUnavailable, match="Bellman updater"):
        remote.sample_labelled(4, 0.1)
