"""Metadata nested deeper than any stack may have room for: refused now, taken by earlier releases."""

import contextlib
import dataclasses

import pytest

from qtopt.errors import SchemaMismatch
from qtopt.legal import MAX_METADATA_DEPTH
from qtopt.replay import EpisodeStore, ReplayConfig, StoreFormat, schema
from tests.episodes import make_episode, nested

FORMAT = StoreFormat.for_images(16)
CONFIG = ReplayConfig(seal_after_s=0.0)
DEEP = 700
LESS_ROOM = 350


def with_less_room(work, levels=LESS_ROOM):
    """Returns what ``work`` does, so many levels deeper in the stack."""
    return work() if levels == 0 else with_less_room(work, levels - 1)


@pytest.fixture
def deep(rng):
    return [dataclasses.replace(make_episode(rng, 2, size_px=16), metadata=nested(DEEP)) for _ in range(4)]


@pytest.fixture
def path(tmp_path, deep, monkeypatch):
    """A closed store as an earlier release wrote it: two sealed episodes, two landed ones."""
    monkeypatch.setattr(EpisodeStore, "_keep_house", lambda store: None)
    with monkeypatch.context() as earlier, EpisodeStore(tmp_path / "store", FORMAT, CONFIG) as store:
        earlier.setattr(schema, "check_metadata", lambda text: None)
        for number, episode in enumerate(deep):
            assert store.append(episode)
            if number == 1:
                store.seal()
    return tmp_path / "store"


@pytest.mark.parametrize("lost", [False, True])
def test_what_an_earlier_release_took_is_served_however_little_room_the_stack_has(path, deep, lost):
    def opened():
        with EpisodeStore(path, config=CONFIG) as store:
            assert store.stats()["quarantined"] == 0
            report = store.verify()
            assert (report.sound, report.episodes) == (True, 4)
            assert store.collectors(4) == [deep[0].collector]
            store.seal()
            assert store.sample_transitions(8, 0.0).next.image.shape == (8, 16, 16, 3)

    if lost:
        with contextlib.closing(EpisodeStore(path, config=CONFIG)) as store:
            store._shelf.catalogue._writer.execute("DELETE FROM episode WHERE segment IS NULL")
    with_less_room(opened)
    assert not list((path / "quarantine").glob("*"))
    with EpisodeStore(path, config=CONFIG) as store:
        assert [store.read_episode(episode.uuid).metadata for episode in deep] == [nested(DEEP)] * 4
        assert store.verify().sound


def test_what_an_earlier_release_took_for_damaged_is_found_sound(path):
    with EpisodeStore(path, config=CONFIG) as store:
        store._shelf.quarantine([0], "landed steps do not match their checksum")
    with EpisodeStore(path, config=CONFIG) as store:
        assert with_less_room(lambda: store.verify(repair=True)).healed == [0]
    with EpisodeStore(path, config=CONFIG) as store:
        assert store.stats()["quarantined"] == 0


@pytest.mark.parametrize("depth", [MAX_METADATA_DEPTH + 1, 900, 100_000])
def test_now_they_are_refused(tmp_path, rng, depth):
    episode = make_episode(rng, 2, size_px=16)
    with EpisodeStore(tmp_path / "store", FORMAT, CONFIG) as store:
        with pytest.raises(SchemaMismatch, match=rf"nested {depth} deep, expected at most 64: flatten them|few levels"):
            store.append(dataclasses.replace(episode, metadata=nested(depth)))
        assert len(store) == 0
        many = {"rows": [{"[": [1]}] * 1000} | nested(MAX_METADATA_DEPTH)
        assert store.append(dataclasses.replace(episode, metadata=many))
        assert store.read_episode(0).metadata == many
