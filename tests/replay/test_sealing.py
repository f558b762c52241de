"""Sealing takes the landing log's place: what was acknowledged survives whatever cannot be read or kept meanwhile."""

import errno
import os
import shutil

import numpy as np
import pytest
import structlog

from qtopt.apps import data
from qtopt.errors import StoreError, StoreFull
from qtopt.replay import EpisodeStore, ReplayConfig, StoreFormat, episode_store, sealing
from tests.episodes import make_episode
from tests.replay.landed import spoil_frame, spoil_frames
from tests.waiting import wait_until

FORMAT = StoreFormat.for_images(16)
SEALS_SOON = ReplayConfig(seal_after_s=0.01)
"""Given to a store once all is in place that its keeper is to meet: by itself it seals nothing so small."""
HURT = 2
"""Which of the episodes is damaged, or on a bad sector."""


@pytest.fixture
def episodes(rng):
    return [make_episode(rng, 2 + number % 3, size_px=16) for number in range(5)]


@pytest.fixture
def path(tmp_path, episodes):
    """A closed store, all of whose episodes are landed, in one file of the log."""
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        for episode in episodes:
            store.append(episode)
    return tmp_path / "store"


def _raising(error):
    def work(*_):
        raise error

    return work


class BadSector:
    """Lets reads fail that touch a place of a file, ``times`` times."""

    def __init__(self, file, offset, times=10**9):
        self.file, self.offset, self.left = os.stat(file), offset, times
        self.pread = os.pread

    def __call__(self, handle, size, offset):
        if self.left and offset <= self.offset < offset + size and os.path.samestat(os.fstat(handle), self.file):
            self.left -= 1
            raise OSError(errno.EIO, "Input/output error")
        return self.pread(handle, size, offset)


def place_of(store, episode):
    """Returns the file of the log and the offset of an episode's second frame, and its position."""
    position = store._shelf.episode(episode.uuid).first_position + 1
    file, offset, _ = store._shelf._landed._log._places[position]
    return file.path, offset, position


def record_of(path, episodes, number):
    """Returns the bytes of an episode's record in the only file of the log."""
    (file,) = (path / "landing").iterdir()
    content, mark = file.read_bytes(), bytes.fromhex(file.stem.partition("-")[2])
    starts = [content.rindex(mark, 0, content.index(each.uuid.encode())) for each in episodes]
    return content[starts[number] : [*starts, len(content)][number + 1]]


def assert_serves(path, episodes):
    with EpisodeStore(path) as store:
        served = list(store.episodes())
        assert [episode.uuid for episode in served] == [episode.uuid for episode in episodes]
        for found, expected in zip(served, episodes, strict=True):
            assert np.array_equal(found.images, expected.images)


def but_hurt(episodes):
    return [episode for number, episode in enumerate(episodes) if number != HURT]


class TestUnreadable:
    def test_one_failed_read_seals_nothing_and_costs_nothing(self, path, episodes, rng, monkeypatch):
        newer = make_episode(rng, 2, size_px=16)
        with EpisodeStore(path) as store:
            file, offset, _ = place_of(store, episodes[HURT])
            monkeypatch.setattr(os, "pread", BadSector(file, offset, times=1))
            with pytest.raises(StoreError, match=r"cannot be read.*Input/output error.*tried again"):
                store.seal()
            assert not list((path / "segments").iterdir())
            assert file.exists()
            assert store.condition().writable
            assert store.append(newer)
            assert store.seal() == 1
            assert not file.exists()
        assert_serves(path, [*episodes, newer])
        assert not (path / "quarantine").exists()

    def test_the_keeper_says_so_once_and_seals_when_it_can(self, path, episodes, monkeypatch):
        monkeypatch.setattr(episode_store, "_TICK_S", 0.01)
        monkeypatch.setattr(episode_store, "_RETRY_SEAL_S", 0.01)
        with structlog.testing.capture_logs() as logs, EpisodeStore(path) as store:
            file, offset, _ = place_of(store, episodes[HURT])
            monkeypatch.setattr(os, "pread", BadSector(file, offset, times=3))
            store.config = SEALS_SOON
            wait_until(lambda: store.stats()["segments"])
            wait_until(lambda: "what waited is sealed" in [entry["event"] for entry in logs])
        told = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
        assert told == ["nothing could be sealed; trying again"]
        assert_serves(path, episodes)

    @pytest.mark.parametrize("failing", [MemoryError(), RuntimeError("can't start new thread")], ids=repr)
    def test_the_keeper_outlives_what_nobody_foresaw(self, path, episodes, monkeypatch, failing):
        monkeypatch.setattr(episode_store, "_TICK_S", 0.01)
        monkeypatch.setattr(episode_store, "_RETRY_SEAL_S", 0.01)
        monkeypatch.setattr(episode_store, "_LABELS_EVERY_S", 0.01)
        monkeypatch.setattr(episode_store, "_RETIRE_EVERY_S", 0.01)
        with structlog.testing.capture_logs() as logs, EpisodeStore(path) as store:
            with monkeypatch.context() as patch:
                for place, name in (
                    (sealing, "write_segment"),
                    (store._shelf._overdue, "among"),
                    (store._ring, "snapshot"),
                ):
                    patch.setattr(place, name, _raising(failing))
                store.config = SEALS_SOON
                wait_until(lambda: len(store._failing) == 3)
            for done in ("sealed", "retired", "saved"):
                wait_until(lambda done=done: f"what waited is {done}" in [entry["event"] for entry in logs])
            assert store.stats()["segments"] == 1
        told = [entry for entry in logs if entry["log_level"] == "warning"]
        assert sorted(entry["event"].split()[3] for entry in told) == ["retired;", "saved;", "sealed;"]
        assert {(entry["error"], entry["exc_info"]) for entry in told} == {(repr(failing), True)}
        assert_serves(path, episodes)

    def test_a_given_up_episode_holds_nobody_up_and_its_file_is_kept_whole(self, path, episodes, monkeypatch):
        with EpisodeStore(path) as store:
            file, offset, _ = place_of(store, episodes[HURT])
            before = file.read_bytes()
            monkeypatch.setattr(os, "pread", BadSector(file, offset))
            with pytest.raises(StoreError, match="--repair"):
                store.seal()
            assert len(store.verify(repair=True).damaged) == 1
            assert store.seal() == 1
            assert not file.exists()
        monkeypatch.undo()
        (kept,) = (path / "quarantine").iterdir()
        assert kept.read_bytes() == before
        assert_serves(path, but_hurt(episodes))
        with EpisodeStore(path, read_only=True) as store:
            (told,) = store.verify().quarantined
            assert str(kept) in told.reason

    def test_two_files_of_one_name_are_kept_side_by_side(self, path, episodes, monkeypatch):
        contents = []
        for taken in (episodes, [make_episode(np.random.default_rng(1), 2, size_px=16)]):
            with monkeypatch.context() as patch, EpisodeStore(path) as store:
                for episode in taken:
                    store.append(episode)
                file, offset, _ = place_of(store, taken[0])
                contents.append(file.read_bytes())
                patch.setattr(os, "pread", BadSector(file, offset))
                store.verify(repair=True)
                store.seal()
        assert sorted(file.read_bytes() for file in (path / "quarantine").iterdir()) == sorted(contents)

    def test_what_the_catalogue_lost_is_kept_with_every_byte(self, path, episodes, monkeypatch):
        """It is left out where it cannot be read when the store is opened; nothing of it becomes zeros."""
        with EpisodeStore(path) as store:
            file, offset, _ = place_of(store, episodes[HURT])
        before = file.read_bytes()
        for catalogue in path.glob("catalogue.db*"):
            catalogue.unlink()
        monkeypatch.setattr(os, "pread", BadSector(file, offset))
        with EpisodeStore(path) as store:
            assert len(store) == len(episodes) - 1
            (kept,) = store.verify().left_out.values()
            store.seal()
        assert not file.exists()
        assert kept.read_bytes() == before

    def test_of_several_records_one_that_cannot_be_read_is_waited_for(self, path, episodes, monkeypatch, tmp_path):
        (older,) = (path / "landing").iterdir()
        for catalogue in path.glob("catalogue.db*"):
            catalogue.unlink()
        EpisodeStore(path).close()
        (newer,) = set((path / "landing").iterdir()) - {older}
        spoil_frames(newer)
        with EpisodeStore(path) as store:
            file, offset, _ = place_of(store, episodes[HURT])
            assert file == older
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", BadSector(file, offset))
            with pytest.raises(StoreError, match="see to the disk and open the store again"):
                EpisodeStore(path)
        assert_serves(path, episodes)


class TestDamaged:
    @pytest.fixture
    def record(self, path, episodes):
        """What the log has of the damaged episode."""
        with EpisodeStore(path) as store:
            spoil_frame(store, place_of(store, episodes[HURT])[2])
        return record_of(path, episodes, HURT)

    def kept(self, path):
        return [file.read_bytes() for file in (path / "quarantine").glob("*.bytes")]

    def test_its_record_is_kept_and_verify_says_where(self, path, episodes, record, capsys):
        with EpisodeStore(path) as store:
            assert store.seal() == 1
        assert not list((path / "landing").iterdir())
        assert self.kept(path) == [record]
        assert data.main(data.Config("verify", (path,))) == 0
        (file,) = (path / "quarantine").iterdir()
        assert f"what was landed is kept in {file}" in capsys.readouterr().out
        assert_serves(path, but_hurt(episodes))

    def test_one_that_was_sampled_before_is_told_in_the_same_way(self, path, episodes, record):
        with EpisodeStore(path) as store:
            assert len(list(store.episodes())) == len(episodes) - 1
            store.seal()
        assert self.kept(path) == [record]
        with EpisodeStore(path) as store:
            (told,) = store.verify().quarantined
            assert "what was landed is kept in" in told.reason

    def test_it_is_kept_before_the_catalogue_hears_of_the_segment(self, path, record, monkeypatch):
        """Afterwards a log whose episodes are sealed is removed by whoever opens the store next."""
        with EpisodeStore(path) as store:
            seal = store._shelf.catalogue.seal

            def look_first(*arguments):
                assert self.kept(path) == [record]
                seal(*arguments)

            monkeypatch.setattr(store._shelf.catalogue, "seal", look_first)
            assert store.seal() == 1

    def test_nothing_is_sealed_while_it_cannot_be_kept(self, path, episodes, record):
        (path / "quarantine").write_text("in the way")
        with EpisodeStore(path) as store:
            with pytest.raises(StoreFull, match="stay in the landing log"):
                store.seal()
            assert not list((path / "segments").iterdir())
            (path / "quarantine").unlink()
            assert store.seal() == 1
        assert self.kept(path) == [record]

    def test_stored_again_since_it_stays_replaced(self, path, episodes, record):
        with EpisodeStore(path) as store:
            list(store.episodes())
            assert store.append(episodes[HURT])
            store.seal()
            assert store.verify().replaced == 1
        assert_serves(path, [*but_hurt(episodes), episodes[HURT]])


class TestInterrupted:
    """A segment has its name and the catalogue does not know it."""

    @pytest.fixture
    def segment(self, path, tmp_path):
        sealed = tmp_path / "sealed"
        shutil.copytree(path, sealed)
        with EpisodeStore(sealed) as store:
            store.seal()
        shutil.copytree(sealed / "segments", path / "segments", dirs_exist_ok=True)
        return path / "segments" / "00000000.zarr"

    def spoil(self, path, episodes):
        (file,) = (path / "landing").iterdir()
        record = record_of(path, episodes, HURT)
        content = file.read_bytes()
        at = content.index(record) + len(record) - 1
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])

    def test_the_log_that_is_whole_is_sealed_again(self, path, episodes, segment):
        with EpisodeStore(path) as store:
            assert not segment.exists()
            store.seal()
        assert_serves(path, episodes)

    @pytest.mark.parametrize("catalogue_lost", [False, True])
    def test_where_the_log_is_damaged_since_the_segment_is_kept_and_taken_in(
        self, path, episodes, segment, catalogue_lost, capsys
    ):
        self.spoil(path, episodes)
        if catalogue_lost:
            for file in path.glob("catalogue.db*"):
                file.unlink()
            EpisodeStore(path.parent / "empty", FORMAT).close()
            shutil.copy(path.parent / "empty" / "catalogue.db", path)
        with pytest.raises(StoreError, match=r"log is damaged since.*--repair.*none was touched"):
            EpisodeStore(path)
        assert segment.exists()
        assert data.main(data.Config("verify", (path,), repair=True)) == 0
        assert_serves(path, episodes)

    def test_a_segment_with_the_same_damage_is_made_again(self, path, episodes, segment, tmp_path):
        """As after a crash between the segment's name and the catalogue's entry."""
        self.spoil(path, episodes)
        record = record_of(path, episodes, HURT)
        shutil.rmtree(segment)
        with EpisodeStore(path) as store, pytest.MonkeyPatch.context() as patch:
            patch.setattr(store._shelf.catalogue, "seal", lambda *_: store.read_episode("no such episode"))
            with pytest.raises(StoreError, match="no such episode"):
                store.seal()
        assert segment.exists()
        with EpisodeStore(path) as store:
            assert not segment.exists()
            store.seal()
        assert [file.read_bytes() for file in (path / "quarantine").iterdir()] == [record]
        assert_serves(path, but_hurt(episodes))

    def test_a_seal_tried_again_does_not_remove_the_only_sound_copy(self, path, episodes, monkeypatch):
        with EpisodeStore(path) as store:
            with monkeypatch.context() as patch:
                patch.setattr(store._shelf.catalogue, "seal", lambda *_: store.read_episode("no such episode"))
                with pytest.raises(StoreError, match="no such episode"):
                    store.seal()
            spoil_frame(store, place_of(store, episodes[HURT])[2])
            with pytest.raises(StoreError, match="none was touched"):
                store.seal()
        assert data.main(data.Config("verify", (path,), repair=True)) == 0
        assert_serves(path, episodes)

    def test_its_removal_may_be_interrupted_as_well(self, path, episodes, segment, monkeypatch):
        def interrupted(directory, *_, **__):
            if directory.exists():
                (directory / "zarr.json").unlink()
                raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", interrupted)
            with pytest.raises(SystemExit):
                EpisodeStore(path)
        assert_serves(path, episodes)
        assert not list((path / "segments").iterdir())
