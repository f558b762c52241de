"""What is in the landing log is stored, whatever became of the catalogue's newest entries."""

import errno
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from qtopt.apps import data
from qtopt.errors import StoreError, StoreFull, UnknownEpisode
from qtopt.replay import EpisodeStore, StoreFormat, landing, read_format, rebuild_catalogue
from qtopt.replay.schema import STORE_FILE
from tests.episodes import make_episode
from tests.replay.landed import spoil_frames, spoil_steps

FORMAT = StoreFormat.for_images(16)


@pytest.fixture
def episodes(rng):
    return [make_episode(rng, 2 + number % 3, size_px=16) for number in range(8)]


@pytest.fixture
def path(tmp_path, episodes):
    """A closed store whose catalogue lacks the last four of eight episodes, as after a failure of the power."""
    path, earlier = tmp_path / "store", tmp_path / "earlier.db"
    with EpisodeStore(path, FORMAT) as store:
        for episode in episodes[:4]:
            store.append(episode)
    shutil.copy(path / "catalogue.db", earlier)
    with EpisodeStore(path) as store:
        for episode in episodes[4:]:
            store.append(episode)
    without_catalogue(path)
    shutil.copy(earlier, path / "catalogue.db")
    return path


def without_catalogue(path):
    for file in path.glob("catalogue.db*"):
        file.unlink()


def assert_holds(path, episodes, left_out=0):
    for read_only in (False, True):
        with EpisodeStore(path, read_only=read_only) as store:
            for found, expected in zip(store.episodes(), episodes, strict=True):
                assert found.uuid == expected.uuid
                assert np.array_equal(found.images, expected.images)
                assert np.array_equal(found.rewards, expected.rewards)
            report = store.verify()
            assert (len(report.left_out), report.sound, report.nothing_new) == (left_out, not left_out, True)


def test_what_the_catalogue_lost_is_landed_again(path, episodes):
    assert_holds(path, episodes)
    with EpisodeStore(path) as store:
        assert not any(store.append(episode) for episode in episodes)
        store.seal()
        assert not list((path / "landing").iterdir())
    assert_holds(path, episodes)


def test_a_record_that_was_cut_off_costs_itself_only(path, episodes):
    newest = max((path / "landing").iterdir())
    os.truncate(newest, newest.stat().st_size - 1)
    assert_holds(path, episodes[:7])
    with EpisodeStore(path) as store:
        assert store.append(episodes[7])
    assert_holds(path, episodes)


def test_a_damaged_record_costs_itself_only(path, episodes):
    spoil_steps(path, episodes[5].uuid)
    assert_holds(path, [*episodes[:5], *episodes[6:]], left_out=1)


class TestLandedAgain:
    """A power cut while lost episodes are landed again, after which the older records are the only good ones."""

    @pytest.fixture
    def path(self, path):
        """Of the last four episodes there are two records each, the newer ones with zeros for frames."""
        before = set((path / "landing").iterdir())
        EpisodeStore(path).close()
        (newer,) = set((path / "landing").iterdir()) - before
        spoil_frames(newer)
        return path

    def test_with_the_catalogue_lost_again_the_good_record_is_landed(self, path, episodes, tmp_path):
        without_catalogue(path)
        shutil.copy(tmp_path / "earlier.db", path / "catalogue.db")
        assert_holds(path, episodes)
        with EpisodeStore(path) as store:
            store.seal()
        assert_holds(path, episodes)
        assert not (path / "quarantine").exists()

    def test_where_the_catalogue_names_it_the_good_record_is_served_and_sealed(self, path, episodes):
        assert_holds(path, episodes)
        with EpisodeStore(path) as store:
            store.seal()
        assert_holds(path, episodes)

    def test_a_rebuild_takes_the_good_record(self, path, episodes):
        without_catalogue(path)
        report = rebuild_catalogue(path)
        assert (report.landed, report.whole) == (8, True)
        assert_holds(path, episodes)

    def test_one_with_no_good_record_is_told_and_kept_aside_before_its_files_go(self, path, episodes, tmp_path, capsys):
        for file in (path / "landing").iterdir():
            spoil_frames(file)
        spoiled = {file.name: file.read_bytes() for file in (path / "landing").iterdir()}
        without_catalogue(path)
        shutil.copy(tmp_path / "earlier.db", path / "catalogue.db")
        assert data.main(data.Config("verify", (path,))) == 1
        assert "8 pieces of the landing log are no episode" in capsys.readouterr().out
        with EpisodeStore(path) as store:
            report = store.verify()
            assert len(report.left_out) == 8
            assert len(report.damaged) == 4
            store.seal()
        assert not list((path / "landing").iterdir())
        kept = [file.read_bytes() for file in (path / "quarantine").glob("landing-*.bytes")]
        assert len(kept) == 8 + 4  # two records each of those that the catalogue lost, and those that it names
        assert all(any(piece in whole for whole in spoiled.values()) for piece in kept)

    def test_nothing_goes_that_cannot_be_kept_aside(self, path, episodes, tmp_path):
        for file in (path / "landing").iterdir():
            spoil_frames(file)
        without_catalogue(path)
        shutil.copy(tmp_path / "earlier.db", path / "catalogue.db")
        (path / "quarantine").write_text("in the way")
        with EpisodeStore(path) as store:
            with pytest.raises(StoreFull, match="quarantine"):
                store.seal()
            assert len(store.verify().left_out) == 8
        assert len(list((path / "landing").iterdir())) == 3


def test_what_could_not_be_flushed_is_taken_back(tmp_path, episodes, monkeypatch):
    def fail(handle):
        raise OSError(errno.EIO, "no answer")

    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        store.append(episodes[0])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(StoreFull, match="no answer"):
                store.append(episodes[1])
        assert len(store) == 1
        assert store.append(episodes[2])
    assert_holds(tmp_path / "store", [episodes[0], episodes[2]])


def test_what_cannot_even_be_taken_back_was_refused_and_hurts_nobody(tmp_path, episodes, monkeypatch):
    """The record stays in the file, whole, at the position that the next episode gets."""

    def fail(*_):
        raise OSError(errno.EIO, "no answer")

    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        store.append(episodes[0])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            patch.setattr(os, "ftruncate", fail)
            with pytest.raises(StoreFull, match="no answer"):
                store.append(episodes[1])
        for episode in episodes[2:]:
            store.append(episode)
    assert_holds(tmp_path / "store", [episodes[0], *episodes[2:], episodes[1]])  # nobody was told so, but it is there
    with EpisodeStore(tmp_path / "store") as store:
        assert not store.append(episodes[1])


def test_on_a_disk_without_room_what_was_lost_waits_and_nothing_takes_its_place(path, episodes, rng, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with EpisodeStore(path) as store:
            assert len(store) == 4
            with pytest.raises(StoreFull):
                store.append(make_episode(rng))
            with pytest.raises(StoreFull, match="what waits in the landing log"):
                store.seal()
    assert_holds(path, episodes)


def test_room_that_comes_back_lands_what_was_lost_before_what_is_new(path, episodes, rng, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    newest = make_episode(rng)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        store = EpisodeStore(path)
    with store:
        assert store.append(newest)
        assert not store.append(episodes[6])
    assert_holds(path, [*episodes, newest])


def test_labels_go_when_what_they_belong_to_was_landed_again(path, episodes):
    (path / "labels.npz").write_bytes(b"of other positions")
    assert_holds(path, episodes)
    with EpisodeStore(path) as store:
        assert store.stats()["labels"] == 0


def test_a_reader_finds_all_while_the_log_is_sealed_under_it(tmp_path, episodes, monkeypatch):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        for episode in episodes:
            store.append(episode)
        opened, once = landing.open_files, [store.seal]

        def seal_first(directory):
            while once:
                once.pop()()
            return opened(directory)

        monkeypatch.setattr(landing, "open_files", seal_first)
        with EpisodeStore(tmp_path / "store", read_only=True) as reader:
            assert not once
            assert [episode.uuid for episode in reader.episodes()] == [episode.uuid for episode in episodes]
            assert reader.verify().sound


def test_a_reader_keeps_what_is_sealed_after_it_has_opened(tmp_path, episodes):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        for episode in episodes:
            store.append(episode)
        with EpisodeStore(tmp_path / "store", read_only=True) as reader:
            store.seal()
            assert not list((tmp_path / "store" / "landing").iterdir())
            assert reader.verify().sound


def test_a_reader_ends_at_what_there_was_when_it_opened(tmp_path, episodes):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        for episode in episodes[:6]:
            store.append(episode)
        with EpisodeStore(tmp_path / "store", read_only=True) as reader:
            for sealed in (False, True):
                store.append(episodes[6 + sealed])
                if sealed:
                    store.seal()
                report = reader.verify()
                assert (report.sound, report.episodes) == (True, 6)
                assert [episode.uuid for episode in reader.episodes()] == [episode.uuid for episode in episodes[:6]]
                for newer in (
                    episodes[6 + sealed].uuid,
                    store._shelf.episode(episodes[6 + sealed].uuid).first_position,
                ):
                    with pytest.raises(UnknownEpisode, match="after the store was opened"):
                        reader._shelf.episode(newer)
                with pytest.raises(UnknownEpisode, match="after the store was opened"):
                    reader.read_episode(episodes[6 + sealed].uuid)


def test_ctrl_c_in_a_thread_that_stores_for_others_ends_the_storing_and_loses_nothing(tmp_path, episodes, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        store.append(episodes[0])
        with monkeypatch.context() as patch:
            patch.setattr(store._shelf.catalogue, "enter", interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.append(episodes[1])
        with pytest.raises(StoreError, match="closed"):
            store.append(episodes[2])
    assert_holds(tmp_path / "store", episodes[:2])


def test_an_older_format_stays_for_readers_and_is_renewed_by_a_writer(path):
    description = path / STORE_FILE
    description.write_text(description.read_text().replace('"format_version": 4', '"format_version": 1'))
    EpisodeStore(path, FORMAT, read_only=True).close()
    assert read_format(path).format_version == 1
    EpisodeStore(path, FORMAT).close()
    assert read_format(path) == FORMAT


def test_what_lands_while_segments_are_sealed_takes_nobodys_place(tmp_path, rng):
    episodes = [make_episode(rng, 8, size_px=16) for _ in range(400)]
    ended = threading.Event()

    def seal(store):
        while not ended.is_set():
            store._shelf.seal()

    with EpisodeStore(tmp_path / "store", FORMAT) as store, ThreadPoolExecutor(8) as pool:
        sealing = threading.Thread(target=seal, args=[store])
        sealing.start()
        try:
            assert all(pool.map(store.append, episodes))
        finally:
            ended.set()
            sealing.join(30)
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        assert sorted(each.uuid for each in store.episodes()) == sorted(each.uuid for each in episodes)
