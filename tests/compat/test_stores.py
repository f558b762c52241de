"""Stores of every format that is read, kept in ``stores/`` as they were written: each opens, is whole, and goes on."""

import re
import zipfile

import pytest

from qtopt.replay import EpisodeStore, rebuild_catalogue
from qtopt.replay.schema import FORMAT_VERSION, read_format
from tests.compat.record_store import STORES, episodes
from tests.episodes import make_episode
from tests.replay.test_store import assert_same_episode

RECORDED = sorted(STORES.glob("*.zip"))


@pytest.fixture(params=RECORDED, ids=lambda path: path.stem)
def store(request, tmp_path):
    """A recorded store, unpacked."""
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(tmp_path / "store")
    return tmp_path / "store"


def expect(opened, expected):
    """Compares everything in a store."""
    report = opened.verify()
    assert report.sound, report
    for found, episode in zip(opened.episodes(), expected, strict=True):
        assert_same_episode(found, episode)


def test_it_is_read_as_it_is(store):
    before = {path: path.read_bytes() for path in store.rglob("*") if path.suffix in (".json", ".log")}
    with EpisodeStore(store, read_only=True) as opened:
        expect(opened, episodes())
    assert {path: path.read_bytes() for path in before} == before


def test_it_takes_more_seals_and_stays_sound(store, rng):
    more = make_episode(rng, 3, size_px=8)
    with EpisodeStore(store) as opened:
        expect(opened, episodes())
        assert [opened.append(episode) for episode in (*episodes(), more)] == [False] * 5 + [True]
        expect(opened, [*episodes(), more])
        assert len(opened.sample_transitions(64, 5.0).position) == 64
        opened.seal()
        assert opened.stats()["segments"] == 2
        assert not list((store / "landing").iterdir())
        expect(opened, [*episodes(), more])
    assert read_format(store).format_version == FORMAT_VERSION
    assert read_format(store).store_id
    with EpisodeStore(store) as opened:
        expect(opened, [*episodes(), more])


def test_its_segments_and_its_log_are_enough(store):
    """A catalogue can be made anew from what the format's log and segments say."""
    (store / "catalogue.db").unlink()
    rebuilt = rebuild_catalogue(store)
    assert (rebuilt.episodes, rebuilt.landed, rebuilt.notes) == (3, 2, [])
    with EpisodeStore(store) as opened:
        expect(opened, episodes())


def test_every_format_since_the_log_is_there():
    """Format 1, from before the log, is in ``recorded/``."""
    there = {int(re.match(r"format-(\d+)", path.stem)[1]) for path in RECORDED}
    assert there == set(range(2, FORMAT_VERSION + 1)), "record the new one: python -m tests.compat.record_store"
    assert all(path.stat().st_size < 64_000 for path in RECORDED)
