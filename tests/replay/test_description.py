"""A store.json that is lost, damaged or wrong: written anew from the segments, and never by guess."""

import json
import shutil

import pytest

from qtopt.apps import data
from qtopt.errors import SchemaMismatch, StoreError
from qtopt.replay import EpisodeStore, StoreFormat, restore_format
from qtopt.replay.schema import STORE_FILE
from tests.replay.test_damage import FORMAT, assert_serves_the_truth, episodes, path

__all__ = ["episodes", "path"]


@pytest.mark.parametrize("text", [None, "", "\0" * 120, '{"format": "qtopt-epi', "[]" * 50_000])
def test_a_lost_description_is_written_anew_from_a_segment(path, episodes, rng, text):
    description = path / STORE_FILE
    if text is None:
        description.unlink()
    else:
        description.write_text(text)
    for options in ({}, {"read_only": True}, {"fmt": StoreFormat.for_images(16, codec="png")}):
        with pytest.raises(StoreError, match=r"store\.json.*data verify --repair"):
            EpisodeStore(path, **options)
    assert restore_format(path) == FORMAT
    assert restore_format(path) is None
    assert bool(text) == any((path / "quarantine").glob("store.json*"))
    with EpisodeStore(path, FORMAT, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)
        assert store.verify().sound


def test_a_description_that_no_segment_tells_is_asked_for(path):
    (path / STORE_FILE).unlink()
    (path / "segments" / "00000000.zarr" / "zarr.json").write_text("{}")
    shutil.rmtree(path / "segments" / "00000001.zarr")
    with pytest.raises(StoreError, match=r"no sealed segment tells .*or write it: {.*height.*}"):
        restore_format(path)
    assert not (path / STORE_FILE).exists()


@pytest.mark.parametrize("wrong", [{"height": 17}, {"width": 8}, {"codec": "png"}])
def test_a_description_that_the_segments_deny_marks_nothing_as_damaged(path, episodes, rng, wrong):
    description = path / STORE_FILE
    right = json.loads(description.read_text())
    description.write_text(json.dumps(right | wrong))
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"store\.json: says .*, its segments 16x16 px, raw; .*--repair"):
            EpisodeStore(path, read_only=read_only)
    assert restore_format(path).store_id == right["store_id"]
    assert json.loads(description.read_text()) == right
    with EpisodeStore(path, FORMAT, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)


def test_a_segment_that_describes_itself_wrongly_does_not_outvote_the_others(path, episodes, rng):
    other = path / "segments" / "00000001.zarr" / "zarr.json"
    other.write_text(other.read_text().replace("16", "15"))
    (path / STORE_FILE).unlink()
    assert restore_format(path) == FORMAT
    with EpisodeStore(path, FORMAT, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)


def test_where_only_the_log_is_left_no_other_store_is_made(tmp_path, episodes):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        store.append(episodes[0])
    for file in (*(tmp_path / "store").glob("catalogue*"), tmp_path / "store" / STORE_FILE):
        file.unlink()
    with pytest.raises(StoreError, match="is missing"):
        EpisodeStore(tmp_path / "store", StoreFormat.for_images(8))


@pytest.mark.parametrize(
    "lost", [["store.json"], ["store.json", "catalogue.db", "catalogue.db-wal", "catalogue.db-shm"]]
)
def test_the_command_writes_a_lost_description_and_catalogue_anew(path, episodes, lost, capfd):
    for name in lost:
        (path / name).unlink(missing_ok=True)
    assert data.main(data.Config("verify", (path,), repair=True)) == 0
    assert "store.json written anew" in capfd.readouterr().out
    with EpisodeStore(path, read_only=True) as store:
        assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in episodes]


def test_a_description_of_a_release_to_come_stays(path):
    description = path / STORE_FILE
    description.write_text(newer := description.read_text().replace('"format_version": 4', '"format_version": 99'))
    with pytest.raises(SchemaMismatch, match="use the release that wrote this store"):
        restore_format(path)
    assert description.read_text() == newer
