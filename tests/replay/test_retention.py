"""Giving up the oldest: what goes, what stays, what a crash leaves, and who is reading meanwhile."""

import os
import shutil
import time

import numpy as np
import pytest

from qtopt.errors import ConfigError, UnknownEpisode
from qtopt.replay import EpisodeStore, ReplayConfig, RetentionConfig, StoreFormat, rebuild_catalogue
from qtopt.types import Targets
from tests.episodes import make_episode

FORMAT = StoreFormat.for_images(16)
FRAMES = 4
SEGMENT_GB = 3 * FRAMES * FORMAT.frame_pixels / 1e9


@pytest.fixture
def episodes(rng):
    return [make_episode(rng, FRAMES - 1, policy_version=10 * number) for number in range(11)]


@pytest.fixture
def path(tmp_path, episodes):
    """A closed store of three segments of three episodes each, and two landed ones."""
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        for number, episode in enumerate(episodes):
            store.append(episode)
            if number % 3 == 2:
                store.seal()
    return tmp_path / "store"


def kept(path, **limits):
    config = ReplayConfig(retention=RetentionConfig(**limits))
    with EpisodeStore(path, config=config) as store:
        store.retire()
        assert store.verify().sound
        uuids = [episode.uuid for episode in store.episodes()]
        assert store.stats()["retired_episodes"] == 11 - len(uuids) == 11 - len(store)
    return uuids


def names(path):
    return sorted(entry.name for entry in (path / "segments").iterdir())


@pytest.mark.parametrize(
    ("limits", "first"),
    [
        ({}, 0),
        ({"max_gb": 3.1 * SEGMENT_GB}, 0),
        ({"max_gb": 2.1 * SEGMENT_GB}, 3),
        ({"max_gb": 1e-9}, 6),  # the newest segment and what is not sealed always stay
        ({"max_versions": 80}, 0),  # 100 is the newest, 20 the newest of the oldest segment
        ({"max_versions": 79}, 3),
        ({"max_versions": 1}, 6),
        ({"max_age_h": 1.0}, 0),
    ],
)
def test_the_oldest_segments_go_whole(path, episodes, limits, first):
    assert kept(path, **limits) == [episode.uuid for episode in episodes[first:]]
    assert names(path) == [f"{number:08d}.zarr" for number in range(first // 3, 3)]


def test_age_counts_from_sealing(path, episodes):
    two_hours_ago = time.time() - 7200
    for number in (0, 2):  # the last one stays although it is old: it is the newest; the middle one stops the search
        os.utime(path / "segments" / f"{number:08d}.zarr" / "zarr.json", (two_hours_ago, two_hours_ago))
    assert kept(path, max_age_h=1.0) == [episode.uuid for episode in episodes[3:]]


def test_positions_and_numbers_are_never_used_again(path, episodes, rng):
    before = len(kept(path, max_gb=1e-9))
    with EpisodeStore(path) as store:
        positions = {store._shelf.episode(episode.uuid).first_position for episode in episodes[6:]}
        new = make_episode(rng, FRAMES - 1)
        assert store.append(new)
        store.seal()
        assert store._shelf.episode(new.uuid).first_position > max(positions)
        assert len(store) == before + 1
    assert names(path) == ["00000002.zarr", "00000003.zarr"]


@pytest.mark.parametrize("files_left", [True, False])
def test_a_crash_between_catalogue_and_files_is_finished_on_opening(path, episodes, tmp_path, files_left):
    shutil.copytree(path / "segments", tmp_path / "segments")
    expected = kept(path, max_gb=1e-9)
    if files_left:
        shutil.copytree(tmp_path / "segments", path / "segments", dirs_exist_ok=True)
    with EpisodeStore(path) as store:
        assert [episode.uuid for episode in store.episodes()] == expected
    assert names(path) == ["00000002.zarr"]
    assert not (path / "quarantine").exists()


def test_labels_of_what_has_gone_go_too(path, rng):
    with EpisodeStore(path, config=ReplayConfig(retention=RetentionConfig(max_gb=1e-9)), rng=rng) as store:
        drawn = store.sample_transitions(256, 0.0)
        store.put_targets(Targets(drawn.position, np.full(256, 0.5, np.float32), 1))
        assert store.retire() == 2
        first = 6 * FRAMES
        for _ in range(20):
            assert (store.sample_transitions(32, 0.0).position >= first).all()
            assert (store.sample_labelled(32, 0.0).position >= first).all()
        store.put_targets(Targets(np.array([0], np.int64), np.zeros(1, np.float32), 1))
        assert store.stats()["labels_dropped"] == 1


def test_a_reader_of_what_is_given_up_goes_on_with_the_rest(path, episodes, rng):
    with (
        EpisodeStore(path, read_only=True, rng=rng) as reader,
        EpisodeStore(path, config=ReplayConfig(retention=RetentionConfig(max_gb=1e-9))) as writer,
    ):
        reading = reader.episodes()
        next(reading)
        assert writer.retire() == 2
        assert [episode.uuid for episode in reading] == [episode.uuid for episode in episodes[6:]]
        with pytest.raises(UnknownEpisode):
            reader.read_episode(episodes[0].uuid)
        for _ in range(20):
            reader.sample_transitions(64, 0.0)
        report = reader.verify()
        assert report.sound
    with EpisodeStore(path) as store:
        assert store.stats()["quarantined"] == 0


def test_a_rebuilt_catalogue_begins_where_the_segments_do(path, episodes):
    expected = kept(path, max_gb=1e-9)
    assert rebuild_catalogue(path).segments == 1
    with EpisodeStore(path) as store:
        assert [episode.uuid for episode in store.episodes()] == expected
        assert store.verify().sound


def test_the_keeper_retires_by_itself(tmp_path, rng):
    config = ReplayConfig(segment_mb=1000 * SEGMENT_GB, seal_after_s=0.01, retention=RetentionConfig(max_gb=SEGMENT_GB))
    with EpisodeStore(tmp_path / "store", FORMAT, config) as store:
        deadline = time.monotonic() + 60
        while store.stats()["retired_episodes"] < 3:
            store.append(make_episode(rng, FRAMES - 1))
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert store.verify().sound


def test_a_negative_limit_is_refused():
    with pytest.raises(ConfigError, match="must not be negative"):
        RetentionConfig(max_gb=-1)
