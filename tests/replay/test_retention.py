"""Giving up the oldest: what goes, what stays, what a crash leaves, and who is reading meanwhile."""

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import structlog

from qtopt.errors import ConfigError, UnknownEpisode
from qtopt.replay import EpisodeStore, ReplayConfig, RetentionConfig, StoreFormat, episode_store, rebuild_catalogue
from qtopt.replay.segment_files import segment_size
from qtopt.replay.transfer import transfer
from qtopt.types import Behaviour, Targets
from tests.episodes import make_episode
from tests.waiting import wait_until

FORMAT = StoreFormat.for_images(16)
FRAMES = 4
SEGMENT_GB = 3 * FRAMES * FORMAT.frame_pixels / 1e9
"""Of the frames alone."""


def acted(rng, version):
    """Returns an episode in which the policy of that version acted."""
    episode = make_episode(rng, FRAMES - 1, policy_version=version)
    return replace(episode, behaviour=np.full_like(episode.behaviour, Behaviour.GREEDY))


@pytest.fixture
def episodes(rng):
    return [acted(rng, 10 * number) for number in range(11)]


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
        ({"segments": 3.1}, 0),
        ({"segments": 2.1}, 3),
        ({"max_gb": 1e-9}, 6),  # the newest segment and what is not sealed always stay
        ({"max_versions": 8}, 0),  # so many acted in what came after the oldest segment
        ({"max_versions": 7}, 3),
        ({"max_versions": 5}, 3),
        ({"max_versions": 1}, 6),
        ({"max_age_h": 1.0}, 0),
    ],
)
def test_the_oldest_segments_go_whole(path, episodes, limits, first):
    if "segments" in limits:
        limits = {"max_gb": limits["segments"] * segment_size(path / "segments" / "00000000.zarr") / 1e9}
    assert kept(path, **limits) == [episode.uuid for episode in episodes[first:]]
    assert names(path) == [f"{number:08d}.zarr" for number in range(first // 3, 3)]


def test_age_counts_from_sealing(path, episodes):
    two_hours_ago = time.time() - 7200
    for number in (0, 2):  # the last one stays although it is old: it is the newest; the middle one stops the search
        os.utime(path / "segments" / f"{number:08d}.zarr" / "zarr.json", (two_hours_ago, two_hours_ago))
    assert kept(path, max_age_h=1.0) == [episode.uuid for episode in episodes[3:]]


@pytest.fixture
def quiet(monkeypatch):
    """The keeper gives nothing up by itself."""
    monkeypatch.setattr(episode_store, "_TICK_S", 600.0)


def sealed_one_by_one(path, rng, versions):
    """Makes a store with a segment for each episode; returns their UUIDs."""
    episodes = [acted(rng, version) for version in versions]
    with EpisodeStore(path, FORMAT) as store:
        for episode in episodes:
            store.append(episode)
            store.seal()
    return [episode.uuid for episode in episodes]


def test_one_episode_with_a_wrong_version_gives_nothing_up(path, episodes, rng, quiet):
    config = ReplayConfig(retention=RetentionConfig(max_versions=9))
    with EpisodeStore(path, config=config) as store:
        store.append(acted(rng, 2**63 - 1))
        assert store.retire() == 0
        store.append(acted(rng, 110))
        assert store.retire() == 1


def test_nor_does_it_keep_what_is_outdated(tmp_path, rng, quiet):
    uuids = sealed_one_by_one(tmp_path / "store", rng, [1, 2**63 - 1, 2, 3, 4, 5])
    with EpisodeStore(tmp_path / "store", config=ReplayConfig(retention=RetentionConfig(max_versions=2))) as store:
        assert store.retire() == 3
        assert [episode.uuid for episode in store.episodes()] == uuids[3:]


def test_versions_that_begin_again_count_as_new_ones(tmp_path, rng, quiet):
    sealed_one_by_one(tmp_path / "store", rng, [7, 8, 9, 1, 2, 3])
    with EpisodeStore(tmp_path / "store", config=ReplayConfig(retention=RetentionConfig(max_versions=3))) as store:
        assert store.retire() == 2


def test_offline_episodes_make_nothing_older(tmp_path, rng, quiet):
    sealed_one_by_one(tmp_path / "offline", rng, [21, 22, 23])
    sealed_one_by_one(tmp_path / "store", rng, [1, 2, 3])
    with (
        EpisodeStore(tmp_path / "store", config=ReplayConfig(retention=RetentionConfig(max_versions=2))) as store,
        EpisodeStore(tmp_path / "offline", read_only=True) as source,
    ):
        assert len(list(transfer(source, store, offline=True))) == 3
        store.seal()
        assert store.retire() == 0
        for version in (21, 22, 23):
            store.append(acted(rng, version))
        assert store.retire() == 3


def backdate(path, hours, numbers):
    """Makes segments of a store so old."""
    for number in numbers:
        when = time.time() - 3600 * hours
        os.utime(path / "segments" / f"{number:08d}.zarr" / "zarr.json", (when, when))


@pytest.mark.parametrize(
    ("limits", "why"),
    [({"max_age_h": 1.0}, {"by_age": 24, "by_versions": 0}), ({"max_versions": 1}, {"by_age": 0, "by_versions": 23})],
)
def test_what_is_suddenly_too_old_goes_by_and_by_and_is_told(tmp_path, rng, quiet, limits, why):
    path = tmp_path / "store"
    sealed_one_by_one(path, rng, range(25))
    backdate(path, 2.0, range(24))
    with EpisodeStore(path, config=ReplayConfig(retention=RetentionConfig(**limits))) as store:
        with structlog.testing.capture_logs() as logs:
            assert [store.retire(0.1) for _ in range(3)] == [2, 2, 2]
        assert [(entry["log_level"], entry["given_up_now"]) for entry in logs] == [("warning", 2)] * 3
        assert why.items() <= logs[0].items()
        with structlog.testing.capture_logs() as logs:
            store.retire()  # who asks for it has it all
            assert store.retire(0.1) == 0
        assert logs == []
        assert store.stats()["segments"] == 25 - max(why.values())


def test_room_is_made_at_once(tmp_path, rng, quiet):
    sealed_one_by_one(tmp_path / "store", rng, range(25))
    with EpisodeStore(tmp_path / "store", config=ReplayConfig(retention=RetentionConfig(max_gb=1e-9))) as store:
        assert store.retire(0.1) == 24


def test_metadata_count_in_the_segment_and_in_the_catalogue(tmp_path, rng, quiet):
    path = tmp_path / "store"
    with EpisodeStore(path, FORMAT, ReplayConfig(retention=RetentionConfig(max_gb=0.002))) as store:
        for version in range(8):
            store.append(replace(acted(rng, version), metadata={"log": "x" * 300_000}))
            store.seal()
            store.retire(0.0)
        assert store.stats()["segments"] == 3  # of 0.62 MB each
    taken = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert taken < 2_000_000 + 700_000  # the catalogue held one more for a moment, and keeps that room for the next


def test_a_segment_whose_files_cannot_be_looked_at_counts_its_frames_until_they_can(path, quiet):
    with EpisodeStore(path, config=ReplayConfig(retention=RetentionConfig(max_gb=4 * SEGMENT_GB))) as store:
        (path / "segments").rename(path / "aside")
        assert store.retire() == 0
        (path / "aside").rename(path / "segments")
        assert store.retire() == 2


def test_a_server_gives_up_a_tenth_at_a_time(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(episode_store, "_TICK_S", 0.01)
    path = tmp_path / "store"
    sealed_one_by_one(path, rng, range(30))
    backdate(path, 2.0, range(30))
    with EpisodeStore(path, config=ReplayConfig(retention=RetentionConfig(max_age_h=1.0))) as store:
        wait_until(lambda: store.stats()["retired_segments"])
        time.sleep(0.3)  # many looks, of which one a minute gives something up
        assert store.stats()["retired_segments"] == 3


def test_a_clock_that_is_set_makes_nothing_older(path, monkeypatch, quiet):
    wall_clock = time.time
    with EpisodeStore(path, config=ReplayConfig(retention=RetentionConfig(max_age_h=1.0))) as store:
        with structlog.testing.capture_logs() as logs:
            for hours in (0, 10, 10, 0, -10):
                monkeypatch.setattr(time, "time", lambda hours=hours: wall_clock() + 3600 * hours)
                assert store.retire() == 0
        assert [entry["set_by_s"] for entry in logs] == [36000, 0, -36000]
        monkeypatch.setattr(time, "time", wall_clock)
        backdate(path, 2.0, [0])
        assert store.retire() == 1


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
