"""A remote policy decides and draws exactly what the local one would."""

import numpy as np
import pytest

from qtopt import specs
from qtopt.errors import RemoteError, SchemaMismatch
from qtopt.rpc import BackgroundServer, ServerConfig, Services, connect, policy
from qtopt.types import Behaviour, Decision, Observation
from tests.rpc.conftest import SIZE
from tests.rpc.stores import DictStore


class DrawingPolicy:
    """Remembers how many actions it chose, and draws from its generator at the start and with each of them."""

    def begin_episode(self, rng):
        self.rng = rng
        self.bias = rng.normal()
        self.count = 0

    def select(self, observation):
        self.count += 1
        x = 0.01 * np.tanh(self.bias + self.rng.normal()) + 0.001 * self.count
        value = float(observation.image.mean()) / 255 if observation.gripper_closed else float("nan")
        return Decision(specs.make_action((x, 0.0, observation.height_to_bottom)), Behaviour.NOISE, value)


@pytest.fixture
def remote():
    services = Services(SIZE, DictStore, make_policy=DrawingPolicy, policy_version=lambda: 41)
    with BackgroundServer(ServerConfig(port=0), services) as server, connect(server.address) as connection:
        yield connection


def observations(seed, count):
    rng = np.random.default_rng(seed)
    return [
        Observation(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), bool(index % 2), float(np.float32(0.1)))
        for index in range(count)
    ]


def play(chooser, rng, episodes=3):
    """Runs episodes with other draws from the same generator in between, as a loop with exploration has them."""
    seen = []
    for episode in range(episodes):
        chooser.begin_episode(rng)
        for observation in observations(episode, 4):
            seen.append(chooser.select(observation))
            rng.random()
    return seen


def test_remote_and_local_policies_agree_to_the_bit(remote):
    ours, theirs = np.random.default_rng(5), np.random.default_rng(5)
    client = remote.policy()
    for left, right in zip(play(DrawingPolicy(), ours), play(client, theirs), strict=True):
        assert left.action.tobytes() == right.action.tobytes()
        assert left.behaviour is right.behaviour
        assert left.value == right.value or (np.isnan(left.value) and np.isnan(right.value))
    assert ours.random() == theirs.random()
    assert client.policy_version == 41


def test_clients_do_not_disturb_each_other(remote):
    first, second = remote.policy(), remote.policy()
    first.begin_episode(np.random.default_rng(1))
    second.begin_episode(np.random.default_rng(1))
    seen = observations(0, 3)
    ours = [first.select(observation).action for observation in seen]
    theirs = [second.select(observation).action for observation in seen]
    assert np.array_equal(ours, theirs)


def test_selecting_before_an_episode_and_after_the_session_is_gone(remote, monkeypatch):
    client = remote.policy()
    seen = observations(0, 1)[0]
    with pytest.raises(RemoteError, match="expected begin_episode"):
        client.select(seen)
    client.begin_episode(np.random.default_rng(1))
    monkeypatch.setattr(policy, "MAX_SESSIONS", 1)
    remote.policy().begin_episode(np.random.default_rng(2))
    with pytest.raises(RemoteError, match=r"not known .* begin the episode again"):
        client.select(seen)
    client.begin_episode(np.random.default_rng(1))
    client.select(seen)


def test_another_kind_of_generator_is_refused(remote):
    with pytest.raises(SchemaMismatch, match="expected PCG64"):
        remote.policy().begin_episode(np.random.Generator(np.random.Philox(1)))


def test_a_server_without_a_policy_says_so(connection):
    with pytest.raises(RemoteError, match=r"begin episode at .*UNIMPLEMENTED"):
        connection.policy().begin_episode(np.random.default_rng(1))
