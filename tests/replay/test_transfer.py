"""Copying episodes from store to store."""

from dataclasses import replace

import numpy as np
import pytest

from qtopt.errors import SchemaMismatch
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.replay.transfer import actor, transfer
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
    assert actor(np.array(behaviour, np.uint8)) is expected


def store_of(episodes, **settings):
    store = MemoryStore(StoreFormat.for_images(episodes[0].images.shape[1], **settings))
    for episode in episodes:
        store.append(episode)
    return store


def test_episodes_of_chosen_actors_arrive_once_and_marked():
    episodes = [acted(S, S, seed=1), acted(G, G, seed=2), acted(N, G, seed=3), acted(S, seed=4)]
    with store_of(episodes) as source, MemoryStore(source.format) as sink:
        assert list(transfer(source, sink, actors={S, N}, limit=2, offline=True)) == ["new", "new"]
        assert list(transfer(source, sink, actors={S, N}, offline=True)) == ["known", "known", "new"]
        kept = list(sink.episodes())
    assert {one.uuid for one in kept} == {episodes[0].uuid, episodes[2].uuid, episodes[3].uuid}
    assert all(one.metadata["offline"] is True for one in kept)
    by_uuid = {one.uuid: one for one in kept}
    np.testing.assert_array_equal(by_uuid[episodes[2].uuid].images, episodes[2].images)


def test_stores_are_merged_without_encoding_anything_anew():
    episodes = [make_episode(np.random.default_rng(seed), 3) for seed in range(5)]
    other = replace(episodes[4], rewards=episodes[4].rewards + 1)
    one, two, sink = (
        store_of(content, codec="jpeg") for content in (episodes[:4], [*episodes[2:4], other], [episodes[4]])
    )
    with one, two, sink:
        assert list(transfer(one, sink)) == ["new"] * 4
        assert list(transfer(two, sink)) == ["known", "known", "conflict"]
        there = {record.row.uuid: record for record in sink.records()}
        for record in one.records():
            assert there[record.row.uuid].frames == record.frames
            assert there[record.row.uuid].row.digest == record.row.digest
        assert there[other.uuid].rows["rewards"][0] == episodes[4].rewards[0]


def test_stores_of_different_formats_are_not_mixed():
    episodes = [make_episode(np.random.default_rng(0), 3)]
    with (
        store_of(episodes) as source,
        MemoryStore(StoreFormat.for_images(16, codec="png")) as sink,
        pytest.raises(SchemaMismatch, match="codec: found png, expected raw"),
    ):
        list(transfer(source, sink))
