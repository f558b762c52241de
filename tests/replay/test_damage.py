"""Flipped bits, lost files, a lost catalogue: found, never served, and what is sound is never given up."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import structlog

from qtopt.apps import data
from qtopt.errors import ServerUnavailable, StoreError, StoreFull
from qtopt.replay import EpisodeStore, StoreFormat, back_up, rebuild, rebuild_catalogue, segment_files
from qtopt.replay.schema import STORE_FILE
from qtopt.types import Targets
from tests.contracts.episode_store import SIZE_PX, by_position
from tests.episodes import make_episode
from tests.replay.landed import spoil_frame, spoil_steps

FORMAT = StoreFormat.for_images(SIZE_PX)


@pytest.fixture
def episodes(rng):
    return [make_episode(rng, 2 + number % 4, size_px=SIZE_PX, success=number % 2 == 0) for number in range(16)]


@pytest.fixture
def path(tmp_path, episodes):
    """A closed store of which the first ten episodes are sealed, in two segments, and the others are landed."""
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        for number, episode in enumerate(episodes):
            store.append(episode)
            if number in (5, 9):
                store.seal()
        # The write-ahead log is folded into the file, so that damage to the file is damage to what is read.
        store._shelf.catalogue._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as logs:
        yield logs


def assert_serves_the_truth(store, episodes, rng):
    """Samples much, and compares all of it with what was stored."""
    table = by_position(episodes)
    for _ in range(3):
        drawn = store.sample_transitions(64, 1.0)
        for index, position in enumerate(drawn.position.tolist()):
            episode, row = table[position]
            assert drawn.reward[index] == episode.rewards[row]
            assert drawn.terminal[index] == (row == len(episode) - 1)
            if not drawn.terminal[index]:
                assert np.array_equal(drawn.next.image[index], episode.images[row + 1])
                assert drawn.next.height_to_bottom[index] == episode.height_to_bottom[row + 1]
        store.put_targets(Targets(drawn.position, rng.random(64).astype(np.float32), 1))
        batch = store.sample_labelled(64, 1.0)
        for index, position in enumerate(batch.position.tolist()):
            episode, row = table[position]
            assert np.array_equal(batch.observation.image[index], episode.images[row])
            assert np.array_equal(batch.action[index], episode.actions[row])
            assert np.array_equal(batch.tool_pose[index], episode.tool_pose[row])
    by_uuid = {episode.uuid: episode for episode in episodes}
    found = list(store.episodes())
    for episode in found:
        assert np.array_equal(episode.images, by_uuid[episode.uuid].images)
        assert np.array_equal(episode.rewards, by_uuid[episode.uuid].rewards)
        assert episode.outcome == by_uuid[episode.uuid].outcome
    return len(found)


def flip(file, rng, bits=1):
    data = bytearray(file.read_bytes())
    for place in rng.integers(0, len(data) * 8, bits).tolist():
        data[place // 8] ^= 1 << place % 8
    file.write_bytes(data)


def test_a_flipped_bit_in_a_segment_costs_one_episode_at_most(path, episodes, rng, tmp_path):
    files = sorted(file for file in (path / "segments").rglob("c/**/*") if file.is_file())
    columns = [file for file in files if "frames" not in file.parts]
    shards = [file for file in files if "frames" in file.parts]
    assert len(shards) == 2
    hurt = 0
    for round_ in range(24):
        copy = tmp_path / "copy"
        shutil.copytree(path, copy)
        victim = (shards * 40 if round_ % 2 else columns)[int(rng.integers(0, 80 if round_ % 2 else len(columns)))]
        flip(copy / victim.relative_to(path), rng)
        with EpisodeStore(copy, rng=rng) as store:
            served = assert_serves_the_truth(store, episodes, rng)
            report = store.verify(repair=True)
            assert not report.sound
            assert served + len(report.damaged) == len(episodes)
            assert len(report.damaged) <= 1
            hurt += len(report.damaged)
        shutil.rmtree(copy)
    assert hurt > 6


def test_damage_is_told_and_kept_in_mind(path, episodes, rng, logged):
    shard = next((path / "segments").glob("00000000.zarr/frames/c/0"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 4  # the first frame of the first episode
    shard.write_bytes(data)
    with EpisodeStore(path, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes) - 1
        assert store.stats()["quarantined"] == 1
    assert [entry["log_level"] for entry in logged if "quarantined" in entry["event"]] == ["warning"]
    with EpisodeStore(path, rng=rng) as store:
        assert store.stats()["quarantined"] == 1
        assert store.stats()["transitions"] == sum(map(len, episodes[1:]))
    data[100] ^= 4  # the file was put back from a copy
    shard.write_bytes(data)
    with EpisodeStore(path, rng=rng) as store:
        report = store.verify(repair=True)
        assert report.sound
        assert report.healed == [0]
    with EpisodeStore(path, rng=rng) as store:
        assert store.stats()["quarantined"] == 0
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)


def test_labels_of_a_damaged_episode_go_with_it(path, episodes, rng):
    with EpisodeStore(path, rng=rng) as store:
        everything = np.array([p for p, (e, row) in enumerate(by_position(episodes)) if row < len(e)], np.int64)
        store.put_targets(Targets(everything, np.zeros(len(everything), np.float32), 1))
        for position in list(store._shelf._landed._log._places):
            spoil_frame(store, position)
        for _ in range(20):
            store.sample_labelled(32, 1.0)
        assert store.stats()["labels"] == sum(map(len, episodes[:10]))
        assert assert_serves_the_truth(store, episodes, rng) == 10


def test_when_nothing_sound_is_left_it_says_so(path, rng):
    with EpisodeStore(path, rng=rng) as store:
        store.seal()
        for shard in (path / "segments").glob("*/frames/c/0"):
            shard.write_bytes(bytes(shard.stat().st_size))
        store.put_targets(Targets(np.array([0], np.int64), np.zeros(1, np.float32), 1))
        with pytest.raises(ServerUnavailable, match="no label of a sound transition"):
            store.sample_labelled(8, 1.0)
        for _ in range(30):
            with contextlib.suppress(ServerUnavailable):
                assert store.sample_transitions(32, 0.0).terminal.all()  # these need no frame


@pytest.mark.parametrize("lost", ["frames/c/0", "rewards/c/0", ""])
def test_a_lost_file_costs_its_segment_only(path, episodes, rng, lost):
    victim = path / "segments" / "00000000.zarr" / lost
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    with EpisodeStore(path, rng=rng) as store:
        served = assert_serves_the_truth(store, episodes, rng)
        assert 6 <= served < len(episodes)
        assert len(store.verify().damaged) == len(episodes) - served


def test_a_segment_cut_short_costs_what_is_cut(path, episodes, rng):
    shard = path / "segments" / "00000000.zarr" / "frames" / "c" / "0"
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)
    with EpisodeStore(path, rng=rng) as store:
        assert 11 <= assert_serves_the_truth(store, episodes, rng) < len(episodes)


def test_landed_episodes_damaged_before_sealing_take_no_other_with_them(path, episodes, rng):
    with EpisodeStore(path, rng=rng) as store:
        for number in (12, 14):
            spoil_frame(store, store._shelf.episode(episodes[number].uuid).first_position + 1)
        store.seal()
        assert store.stats()["quarantined"] == 2
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes) - 2
    assert len(list((path / "quarantine").glob("landing-*.bytes"))) == 2
    with EpisodeStore(path, rng=rng) as store:
        assert store.stats()["quarantined"] == 2


def test_landed_steps_that_are_damaged_are_found_on_opening(path, episodes, rng):
    spoil_steps(path, episodes[11].uuid)
    for _ in range(2):
        with EpisodeStore(path, rng=rng) as store:
            assert store.stats()["quarantined"] == 1
            assert assert_serves_the_truth(store, episodes, rng) == len(episodes) - 1
            store.seal()


def test_flipped_bits_in_the_catalogue_are_never_served(path, episodes, rng, tmp_path):
    refused = served_all = 0
    for _ in range(15):
        copy = tmp_path / "copy"
        shutil.copytree(path, copy)
        flip(copy / "catalogue.db", rng, bits=20)
        try:
            with EpisodeStore(copy, rng=rng) as store:
                served_all += assert_serves_the_truth(store, episodes, rng) == len(episodes)
        except StoreError:
            refused += 1
            report = rebuild_catalogue(copy)
            assert report.segments == 2
            with EpisodeStore(copy, rng=rng) as store:
                uuids = {episode.uuid for episode in store.episodes()}
                assert uuids >= {episode.uuid for episode in episodes[:10]}
                assert store.verify().sound
        shutil.rmtree(copy)
    assert refused + served_all > 0


def test_a_lost_catalogue_is_never_replaced_by_an_empty_one(path, episodes):
    for file in path.glob("catalogue.db*"):
        file.unlink()
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"catalogue.*missing.*--repair"):
            EpisodeStore(path, read_only=read_only)
    report = rebuild_catalogue(path)
    assert (report.segments, report.episodes, report.landed, report.notes) == (2, 10, 6, [])
    with EpisodeStore(path) as store:
        assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in episodes]
        assert not store.append(episodes[10])
        assert not store.append(episodes[3])


def test_the_first_format_had_its_landed_episodes_in_the_catalogue(path, episodes):
    description = path / STORE_FILE
    description.write_text(description.read_text().replace('"format_version": 4', '"format_version": 1'))
    for file in path.glob("catalogue.db*"):
        file.unlink()
    report = rebuild_catalogue(path)
    assert not report.whole
    assert "what was not sealed yet was in it" in report.notes[0]


def test_a_rebuilt_catalogue_holds_everything(path, episodes, rng):
    report = rebuild_catalogue(path)
    assert (report.segments, report.episodes, report.landed, report.notes) == (2, 10, 6, [])
    assert report.old_catalogue.parent.parent == path / "quarantine"
    with EpisodeStore(path, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)
        assert not any(store.append(episode) for episode in episodes)
        assert store.verify().sound


def test_a_rebuild_that_fails_changes_nothing(path, episodes, rng, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("qtopt.replay.rebuild.enter_segments", lambda *_: next((path / "none").iterdir()))
        with pytest.raises(StoreFull, match="cannot be rebuilt"):
            rebuild_catalogue(path)
    with EpisodeStore(path, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)
    (path / "catalogue.db").unlink()  # as if it had been interrupted while the files changed places
    assert rebuild_catalogue(path).landed == 6
    with EpisodeStore(path, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)


def test_a_rebuild_interrupted_while_files_change_places_leaves_what_was(path, episodes, rng, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    with EpisodeStore(path) as store:
        store.seal()
        shutil.copytree(path, copy)  # as a server leaves it that was killed: the seal is in the catalogue's log alone
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: {}["power"])
        with pytest.raises(KeyError, match="power"):
            rebuild_catalogue(copy)
    with EpisodeStore(copy, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)
    assert rebuild_catalogue(copy).segments == 3


def test_the_old_catalogue_is_kept_durably(path, monkeypatch):
    flushed = []

    def noted(file):
        flushed.append(file)
        segment_files.flush(file)

    monkeypatch.setattr(rebuild, "flush", noted)
    kept = rebuild_catalogue(path).old_catalogue
    assert flushed.index(kept) < min(flushed.index(each) for each in (kept.parent, kept.parent.parent, path))


def test_rebuilding_leaves_out_what_is_damaged_and_says_so(path, episodes):
    (path / "segments" / "00000001.zarr" / "episode_uuid" / "c" / "0" / "0").write_bytes(b"damaged")
    with EpisodeStore(path) as store:
        spoil_frame(store, store._shelf.episode(episodes[10].uuid).first_position)
    report = rebuild_catalogue(path)
    assert report.segments == 2  # the old catalogue has told what the damaged column does not
    assert report.landed == 5
    assert report.set_aside == 1
    assert len(report.notes) == 2
    with EpisodeStore(path) as store:
        assert not store.verify().damaged
        assert [episode.uuid for episode in store.episodes()] == [
            episode.uuid for number, episode in enumerate(episodes) if number != 10
        ]


def test_a_seal_that_did_not_reach_the_catalogue_is_done_again(path, episodes, rng, monkeypatch):
    segment = path / "segments" / "00000002.zarr"
    with EpisodeStore(path, rng=rng) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store._shelf.catalogue, "seal", lambda *_: store.read_episode("no such episode"))
            with pytest.raises(StoreError, match="no such episode"):
                store.seal()
        assert segment.exists()
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)
    with EpisodeStore(path, rng=rng) as store:
        assert not segment.exists()
        assert store.seal() == 1
        assert segment.exists()
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)


def test_a_store_copied_without_the_catalogues_log_loses_nothing(tmp_path, episodes, rng):
    store_path, copy = tmp_path / "store", tmp_path / "copy"
    with EpisodeStore(store_path, FORMAT) as store:
        for episode in episodes:
            store.append(episode)
            store.seal()
        shutil.copytree(store_path, copy, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    with pytest.raises(StoreError, match=r"knows nothing.*verify --repair"):
        EpisodeStore(copy)
    assert rebuild_catalogue(copy).whole
    with EpisodeStore(copy, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)
        assert store.verify().sound


def test_an_old_catalogue_to_which_sealed_episodes_are_landed_costs_none(tmp_path, episodes, rng):
    store_path, old = tmp_path / "store", tmp_path / "catalogue.db"
    with EpisodeStore(store_path, FORMAT) as store:
        for episode in episodes:
            store.append(episode)
        with sqlite3.connect(store_path / "catalogue.db") as live, sqlite3.connect(old) as copy:
            live.backup(copy)
        live.close()
        copy.close()
        store.seal()
    shutil.copy(old, store_path / "catalogue.db")
    sealed = sorted((store_path / "segments").iterdir())
    with EpisodeStore(store_path, read_only=True) as store:
        assert "knows nothing" in store.verify().unexplained
    with pytest.raises(StoreError, match=r"knows nothing.*verify --repair"):
        EpisodeStore(store_path)
    assert sorted((store_path / "segments").iterdir()) == sealed
    assert rebuild_catalogue(store_path).whole
    with EpisodeStore(store_path, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)
        assert store.verify().sound


def test_segments_that_the_catalogue_has_lost_are_taken_in_again(path, episodes, rng):
    segments = path / "segments"
    shutil.copytree(segments / "00000001.zarr", segments / "00000007.tmp")
    (segments / "notes").mkdir()
    with EpisodeStore(path) as store:
        store.seal()
    with sqlite3.connect(path / "catalogue.db") as database:  # as an old copy of the catalogue would be
        database.executescript("DELETE FROM segment WHERE number = 2; DELETE FROM episode WHERE segment = 2")
    database.close()
    with EpisodeStore(path, read_only=True) as store:
        assert not store.verify().nothing_new
    with pytest.raises(StoreError, match=r"knows nothing.*verify --repair"):
        EpisodeStore(path)
    assert (segments / "00000002.zarr" / "zarr.json").exists()
    assert rebuild_catalogue(path).whole
    with EpisodeStore(path, rng=rng) as store:
        assert assert_serves_the_truth(store, episodes, rng) == len(episodes)
        assert store.verify().sound
    assert sorted(entry.name for entry in segments.iterdir()) == [f"0000000{number}.zarr" for number in range(3)]
    assert (path / "quarantine" / "notes").is_dir()


def test_what_the_catalogue_has_lost_is_neither_copied_nor_backed_up_without_it(path, tmp_path):
    with EpisodeStore(path) as store:
        store.seal()
    assert back_up(path, tmp_path / "backup").segments == 3
    with sqlite3.connect(path / "catalogue.db") as database:
        database.executescript("DELETE FROM segment WHERE number = 2; DELETE FROM episode WHERE segment = 2")
    database.close()
    with pytest.raises(StoreError, match="knows nothing"):
        back_up(path, tmp_path / "backup")
    assert len(list((tmp_path / "backup" / "segments").iterdir())) == 3
    with pytest.raises(StoreError, match="knows nothing"):
        data.main(data.Config("copy", (path,), into=tmp_path / "copy"))
    assert data.main(data.Config("info", (path,))) == 1
