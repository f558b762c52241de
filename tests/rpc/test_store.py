"""The project's own stores behind the server: a remote one does what a local one does."""

from contextlib import contextmanager

import numpy as np
import pytest

from qtopt.replay import EpisodeStore, MemoryStore, StoreFormat
from qtopt.rpc import BackgroundServer, ServerConfig, Services, connect
from qtopt.types import Targets
from tests.contracts.episode_store import SIZE_PX, EpisodeStoreContract
from tests.episodes import make_episode
from tests.rpc.test_codec import assert_same

FORMAT = StoreFormat.for_images(SIZE_PX)


@contextmanager
def remote(local):
    """Gives ``local`` over gRPC."""
    size = (SIZE_PX, SIZE_PX)
    with (
        local,
        BackgroundServer(ServerConfig(port=0), Services(size, lambda: local)) as server,
        connect(server.address, size) as connection,
    ):
        yield connection.replay


class TestMemoryStoreOverGrpc(EpisodeStoreContract):
    @pytest.fixture
    def store(self, rng):
        with remote(MemoryStore(FORMAT, rng=rng)) as client:
            yield client


class TestEpisodeStoreOverGrpc(EpisodeStoreContract):
    @pytest.fixture
    def store(self, tmp_path, rng):
        with remote(EpisodeStore(tmp_path / "store", FORMAT, rng=rng)) as client:
            yield client


def test_remote_and_local_stores_draw_the_same(rng):
    local, served = (MemoryStore(FORMAT, rng=np.random.default_rng(3)) for _ in range(2))
    with local, remote(served) as client:
        for steps in (1, 5, 20):
            episode = make_episode(rng, steps)
            assert local.append(episode) is client.append(episode) is True
        ours, theirs = (store.sample_transitions(64, 1.0) for store in (local, client))
        assert_same(ours, theirs)
        for store in (local, client):
            store.put_targets(Targets(ours.position, np.full(64, 0.5, np.float32), 5))
        left, right = (store.sample_labelled(32, 1.0) for store in (local, client))
        for name in ("position", "action", "tool_pose", "target", "model_version"):
            assert np.array_equal(getattr(left, name), getattr(right, name)), name
        assert_same(left.observation, right.observation)
        assert set(local.stats()) == set(client.stats())


def test_stored_jpegs_travel_as_they_are_and_show_the_same(rng):
    fmt = StoreFormat.for_images(SIZE_PX, codec="jpeg")
    local, served = (MemoryStore(fmt, rng=np.random.default_rng(3)) for _ in range(2))
    with local, remote(served) as client:
        episode = make_episode(rng, 9)
        assert local.append(episode) is client.append(episode) is True
        ours, theirs = (store.sample_transitions(40, 1.0) for store in (local, client))
        goes_on = ~ours.terminal
        assert np.array_equal(ours.terminal, theirs.terminal)
        assert np.array_equal(ours.next.image[goes_on], theirs.next.image[goes_on])
        for store in (local, client):
            store.put_targets(Targets(ours.position, np.full(40, 0.5, np.float32), 5))
        left, right = (store.sample_labelled(32, 1.0) for store in (local, client))
        assert_same(left.observation, right.observation)
