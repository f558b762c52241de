"""The contract, in memory and on disk; what a store on disk does beyond it."""

import contextlib
import dataclasses
import json
import os
import subprocess
import threading
import time

import numpy as np
import pytest

from qtopt.errors import ConfigError, CorruptEpisode, EpisodeConflict, SchemaMismatch, ServerUnavailable, StoreError
from qtopt.replay import (
    EpisodeStore,
    LabelRingConfig,
    MemoryStore,
    RateLimiterConfig,
    ReplayConfig,
    SamplerConfig,
    StoreFormat,
    read_format,
)
from qtopt.types import EpisodeEnd, Outcome, Targets
from tests.contracts.episode_store import SIZE_PX, EpisodeStoreContract
from tests.episodes import make_episode
from tests.replay.landed import spoil_frame

FORMAT = StoreFormat.for_images(SIZE_PX)


def assert_same_episode(found, expected):
    for item in dataclasses.fields(expected):
        mine, theirs = getattr(found, item.name), getattr(expected, item.name)
        if isinstance(theirs, np.ndarray):
            assert mine.dtype == theirs.dtype, item.name
            assert np.array_equal(mine, theirs), item.name
        else:
            assert mine == theirs, item.name


class TestMemoryStore(EpisodeStoreContract):
    @pytest.fixture
    def store(self, rng):
        with MemoryStore(FORMAT, rng=rng) as store:
            yield store


class TestEpisodeStore(EpisodeStoreContract):
    @pytest.fixture
    def store(self, tmp_path, rng):
        with EpisodeStore(tmp_path / "store", FORMAT, rng=rng) as store:
            yield store


class TestStoreThatSealsAllTheTime(EpisodeStoreContract):
    """Every landed episode is moved to a segment at once, while the contract's tests go on."""

    @pytest.fixture
    def store(self, tmp_path, rng):
        ended = threading.Event()

        def seal():
            while not ended.wait(0.001):
                store.seal()

        with EpisodeStore(tmp_path / "store", FORMAT, ReplayConfig(segment_mb=0.001), rng=rng) as store:
            sealer = threading.Thread(target=seal)
            sealer.start()
            yield store
            ended.set()
            sealer.join()


@pytest.fixture
def episodes(rng):
    return [make_episode(rng, 1 + number % 6, size_px=SIZE_PX, success=number % 3 == 0) for number in range(12)]


@pytest.fixture(params=["landed", "sealed", "both"])
def stored(request, tmp_path, episodes):
    """The path of a closed store of ``episodes``."""
    with EpisodeStore(tmp_path / "store", FORMAT, ReplayConfig(segment_mb=0.01)) as store:
        for number, episode in enumerate(episodes):
            store.append(episode)
            if request.param == "sealed" or (request.param == "both" and number == 6):
                store.seal()
    return tmp_path / "store"


def test_what_was_stored_is_read_after_reopening(stored, episodes):
    with EpisodeStore(stored) as store:
        assert len(store) == len(episodes)
        for number, (found, expected) in enumerate(zip(store.episodes(), episodes, strict=True)):
            assert_same_episode(found, expected)
            assert_same_episode(store.read_episode(number), expected)
            assert_same_episode(store.read_episode(expected.uuid), expected)
        assert_same_episode(store.read_episode(-1), episodes[-1])
        with pytest.raises(StoreError, match="no episode"):
            store.read_episode("0" * 32)
        with pytest.raises(IndexError):
            store.read_episode(len(episodes))


def test_digests_survive_reopening(stored, episodes, rng):
    with EpisodeStore(stored) as store:
        assert not any(store.append(episode) for episode in episodes)
        other = dataclasses.replace(make_episode(rng, 2, size_px=SIZE_PX), uuid=episodes[4].uuid)
        with pytest.raises(EpisodeConflict, match=r"kept aside in .*npz"):
            store.append(other)
    kept = list((stored / "quarantine").glob(f"{episodes[4].uuid}-*.npz"))
    assert len(kept) == 1
    with np.load(kept[0]) as saved:
        assert saved["frames"].size == other.images.size
        assert np.array_equal(saved["rows"]["actions"][:-1], other.actions)


def test_refused_episodes_take_limited_room(tmp_path, rng):
    episode = make_episode(rng, 2, size_px=SIZE_PX)
    with EpisodeStore(tmp_path / "store", FORMAT, ReplayConfig(quarantine_mb=0.0)) as store:
        store.append(episode)
        with pytest.raises(EpisodeConflict, match="kept aside in no place"):
            store.append(dataclasses.replace(episode, collector="another"))
    assert not (tmp_path / "store" / "quarantine").exists()


def test_sampling_after_reopening_is_that_of_before(stored):
    drawn = []
    for _ in range(2):
        with EpisodeStore(stored, rng=np.random.default_rng(5)) as store:
            drawn.append(store.sample_transitions(100, 1.0))
    assert np.array_equal(drawn[0].position, drawn[1].position)
    assert np.array_equal(drawn[0].next.image, drawn[1].next.image)


def test_appending_goes_on_behind_what_is_there(stored, episodes, rng):
    more = make_episode(rng, 3, size_px=SIZE_PX)
    with EpisodeStore(stored) as store:
        assert store.append(more)
        store.seal()
        assert_same_episode(store.read_episode(-1), more)
        assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in [*episodes, more]]


@pytest.mark.parametrize("codec", ["raw", "png", "jpeg"])
def test_frames_survive_their_codec(tmp_path, rng, codec):
    size = 150  # frames of several chunks
    smooth = np.kron(rng.integers(0, 256, (4, 5, 5, 3)), np.ones((1, 30, 30, 1))).astype(np.uint8)
    episode = dataclasses.replace(make_episode(rng, 3, size_px=size), images=smooth)
    noisy = make_episode(rng, 2, size_px=size)
    with EpisodeStore(tmp_path / "store", StoreFormat.for_images(size, codec=codec)) as store:
        store.append(episode)
        store.append(noisy)
        for _ in range(2):
            found = store.read_episode(0)
            error = np.abs(found.images.astype(int) - episode.images)
            assert error.mean() < 3 if codec == "jpeg" else not error.any()
            assert codec == "jpeg" or np.array_equal(store.read_episode(1).images, noisy.images)
            assert store.verify().sound
            store.seal()


def test_large_frames_are_jpeg_unless_told_otherwise():
    assert StoreFormat.for_images(128).codec == "raw"
    assert StoreFormat.for_images(472).codec == "jpeg"
    assert StoreFormat.for_images(472, codec="png").codec == "png"
    with pytest.raises(ConfigError, match="webp"):
        StoreFormat.for_images(472, codec="webp")


def test_a_store_of_another_format_is_refused_by_name(stored):
    with pytest.raises(SchemaMismatch, match="height: found 16, expected 72; width: found 16, expected 72"):
        EpisodeStore(stored, StoreFormat.for_images(72))
    path = stored / "store.json"
    values = json.loads(path.read_text())
    for key, found in (("schema_version", 99), ("format_version", 7)):
        path.write_text(json.dumps({**values, key: found}))
        with pytest.raises(SchemaMismatch, match=str(found)):
            EpisodeStore(stored)
    for text in ("{", "{}", "null", json.dumps({**values, "format": "other"}), json.dumps({**values, "codec": "rav"})):
        path.write_text(text)
        with pytest.raises(StoreError, match="cannot be read"):
            EpisodeStore(stored)


def test_a_missing_store_is_not_made_for_reading(tmp_path):
    for arguments in ({}, {"fmt": FORMAT, "read_only": True}):
        with pytest.raises(StoreError, match="no episode store here"):
            EpisodeStore(tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()


def test_a_second_writer_is_refused_with_the_pid_of_the_first(stored):
    with EpisodeStore(stored), pytest.raises(StoreError, match=f"written by process {os.getpid()}"):
        EpisodeStore(stored)
    EpisodeStore(stored).close()


def test_reading_beside_a_writer(stored, episodes, rng):
    with EpisodeStore(stored) as writer, EpisodeStore(stored, read_only=True) as reader:
        writer.append(make_episode(rng, 2, size_px=SIZE_PX))
        writer.seal()
        assert [episode.uuid for episode in reader.episodes()] == [episode.uuid for episode in episodes]
        drawn = reader.sample_transitions(50, 1.0)
        reader.put_targets(Targets(drawn.position, np.zeros(50, np.float32), 1))
        assert len(reader.sample_labelled(20, 1.0)) == 20
        with pytest.raises(StoreError, match="reading only"):
            reader.append(episodes[0])


def test_a_read_only_directory_can_be_read(stored, episodes):
    before = {path: path.read_bytes() for path in stored.rglob("*") if path.is_file()}
    with EpisodeStore(stored, read_only=True) as store:
        assert len(list(store.episodes())) == len(episodes)
        assert store.verify().sound
    after = {path: path.read_bytes() for path in stored.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before


def test_a_store_on_a_read_only_medium_can_be_read(stored, episodes, tmp_path):
    medium = tmp_path / "medium"
    medium.mkdir()
    if subprocess.run(["mount", "--bind", str(stored), str(medium)], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(medium)], check=True)
        with EpisodeStore(medium, read_only=True) as store:
            assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in episodes]
    finally:
        subprocess.run(["umount", str(medium)], check=True)


def test_labels_and_their_versions_survive_closing(stored):
    with EpisodeStore(stored) as store:
        store.put_targets(Targets(np.array([0, 2], np.int64), np.array([0.25, 0.5], np.float32), 42))
    with EpisodeStore(stored) as store:
        assert store.stats()["label_version_max"] == 42
        batch = store.sample_labelled(10, 1.0)
        assert set(batch.target.tolist()) <= {0.25, 0.5}
    (stored / "labels.npz").write_bytes(b"not labels")
    with EpisodeStore(stored) as store:
        assert store.stats()["labels"] == 0


def test_landed_episodes_are_sealed_when_there_are_enough_or_they_are_old(tmp_path, episodes):
    config = ReplayConfig(segment_mb=0.01, seal_after_s=0.1)
    with EpisodeStore(tmp_path / "store", FORMAT, config) as store:
        for episode in episodes:
            store.append(episode)
        deadline = time.monotonic() + 20
        while store.stats()["landed_steps"] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert store.stats()["landed_steps"] == 0
        assert store.stats()["segments"] >= 3
        assert store.verify().sound


def test_few_open_segments_are_enough(tmp_path, episodes):
    with EpisodeStore(tmp_path / "store", FORMAT, ReplayConfig(segment_mb=0.001, max_open_segments=2)) as store:
        for episode in episodes:
            store.append(episode)
        assert store.seal() >= 5
        for _ in range(3):
            store.sample_transitions(64, 1.0)
        assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in episodes]


def test_the_last_transition_can_be_bootstrapped_at_the_step_limit(rng):
    timed_out = dataclasses.replace(
        make_episode(rng, 3, size_px=SIZE_PX, success=False), end=EpisodeEnd.TRUNCATED, outcome=Outcome.TIMED_OUT
    )
    ended = make_episode(rng, 2, size_px=SIZE_PX)
    config = ReplayConfig(bootstrap_truncated=True, labels=LabelRingConfig(terminal_share=1.0))
    with MemoryStore(FORMAT, config, rng=rng) as store:
        store.append(timed_out)
        store.append(ended)
        drawn = store.sample_transitions(100, 1.0)
        assert np.array_equal(drawn.terminal, drawn.position == 5)
        at_limit = drawn.position == 2
        assert (drawn.next.image[at_limit] == timed_out.images[3]).all()
        store.put_targets(Targets(drawn.position, np.zeros(100, np.float32), 1))
        assert (store.sample_labelled(50, 1.0).position == 5).all()


def test_updaters_wait_for_the_trainer_and_the_trainer_for_labels(rng):
    limiter = RateLimiterConfig(samples_per_insert=2.0, min_size=16, error_buffer=48, insert_batch=16, sample_batch=32)
    with MemoryStore(FORMAT, ReplayConfig(limiter=limiter), rng=rng) as store:
        store.append(make_episode(rng, 20, size_px=SIZE_PX))
        labelled = taken = 0
        for _ in range(50):
            with contextlib.suppress(ServerUnavailable):
                for _ in range(10):
                    drawn = store.sample_transitions(16, 0.0)
                    store.put_targets(Targets(drawn.position, np.zeros(16, np.float32), 1))
                    labelled += 16
            store.sample_labelled(32, 0.0)
            taken += 32
        assert taken == 50 * 32
        assert abs(2 * (labelled - 16) - taken) <= 48


def test_settings_that_cannot_work_are_refused():
    for make in (
        lambda: ReplayConfig(min_transitions=0),
        lambda: ReplayConfig(segment_mb=0),
        lambda: ReplayConfig(quarantine_mb=-1),
        lambda: ReplayConfig(labels=LabelRingConfig(capacity=10), limiter=RateLimiterConfig(min_size=11)),
        lambda: LabelRingConfig(capacity=0),
        lambda: LabelRingConfig(success_share=1.5),
        lambda: SamplerConfig(offline_share_end=0.5),
        lambda: SamplerConfig(success_share=-0.1),
        lambda: SamplerConfig(half_life=0.0),
        lambda: SamplerConfig(offline_share_over=0),
        lambda: RateLimiterConfig(samples_per_insert=-1),
    ):
        with pytest.raises(ConfigError):
            make()


def test_what_does_not_fit_the_schema_is_refused_by_name(rng):
    good = make_episode(rng, 3, size_px=SIZE_PX)
    bad = {
        "uuid": {"uuid": "not a uuid"},
        "rewards": {"rewards": good.rewards[:2]},
        "gripper_closed": {"gripper_closed": good.gripper_closed[:3]},
        "behaviour": {"behaviour": np.full(3, 77, np.uint8)},
        "metadata": {"metadata": {"value": float("nan")}},
        "policy_version": {"policy_version": -1},
        "actions": {"actions": np.full((3, 8), np.nan, np.float32)},
        "21 actions": {"actions": np.zeros((21, 8), np.float32)},
    }
    with MemoryStore(FORMAT) as store:
        for name, change in bad.items():
            with pytest.raises(SchemaMismatch, match=name):
                store.append(dataclasses.replace(good, **change))
        with pytest.raises(SchemaMismatch, match="count 0"):
            store.sample_transitions(0, 0.0)
        assert len(store) == 0


def test_the_format_of_a_store_can_be_read_alone(stored):
    assert read_format(stored) == FORMAT


def test_a_damaged_episode_cannot_be_read(stored, episodes):
    with EpisodeStore(stored) as store:
        row = store._shelf.episode(episodes[3].uuid)
        if row.segment is None:
            spoil_frame(store, row.first_position)
        if row.segment is None:
            with pytest.raises(CorruptEpisode, match=episodes[3].uuid):
                store.read_episode(episodes[3].uuid)
        else:
            assert_same_episode(store.read_episode(episodes[3].uuid), episodes[3])
