"""Copying episodes from store to store."""

from dataclasses import replace

import numpy as np
import pytest

from qtopt.loops.transfer import actor, transfer
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.types import Behaviour
from tests.episodes import make_episode

S, G, N, R = Behaviour.SCRIPTED, Behaviour.GREEDY, Behaviour.NOISE, Behaviour.RANDOM


def acted(*behaviour, seed=0):
    made = make_episode(np.random.default_rng(seed), steps=len(behaviour))
    return replace(made, behaviour=np.array(behaviour, np.uint8))


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [((S, R, S), S), ((N, R, G), N), ((G, G), G), ((R, R), R), ((N, Behaviour.HUMAN), Behaviour.HUMAN)],
)
def test_the_actor_of_an_episode_is_who_acted_but_for_single_random_actions(behaviour, expected):
    assert actor(acted(*behaviour)) is expected


def test_episodes_of_chosen_actors_arrive_once_and_marked():
    episodes = [acted(S, S, seed=1), acted(G, G, seed=2), acted(N, G, seed=3), acted(S, seed=4)]
    with MemoryStore(StoreFormat.for_images(episodes[0].images.shape[1])) as sink:
        assert list(transfer(episodes, sink, actors={S, N}, limit=2, offline=True)) == [True, True]
        assert list(transfer(episodes, sink, actors={S, N}, offline=True)) == [False, False, True]
        kept = list(sink.episodes())
    assert [one.uuid for one in kept] == [episodes[0].uuid, episodes[2].uuid, episodes[3].uuid]
    assert all(one.metadata["offline"] is True for one in kept)
    np.testing.assert_array_equal(kept[1].images, episodes[2].images)
