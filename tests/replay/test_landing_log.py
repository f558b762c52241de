"""What is in the landing log is stored, whatever became of the catalogue's newest entries."""

import errno
import os
import shutil

import numpy as np
import pytest

from qtopt.errors import StoreFull
from qtopt.replay import EpisodeStore, StoreFormat, read_format
from qtopt.replay.schema import STORE_FILE
from tests.episodes import make_episode
from tests.replay.landed import spoil_steps

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
    for file in path.glob("catalogue.db*"):
        file.unlink()
    shutil.copy(earlier, path / "catalogue.db")
    return path


def assert_holds(path, episodes):
    for read_only in (False, True):
        with EpisodeStore(path, read_only=read_only) as store:
            for found, expected in zip(store.episodes(), episodes, strict=True):
                assert found.uuid == expected.uuid
                assert np.array_equal(found.images, expected.images)
                assert np.array_equal(found.rewards, expected.rewards)
            assert store.verify().sound


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
    assert_holds(path, [*episodes[:5], *episodes[6:]])


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


def test_an_older_format_stays_for_readers_and_is_renewed_by_a_writer(path):
    description = path / STORE_FILE
    description.write_text(description.read_text().replace('"format_version": 2', '"format_version": 1'))
    EpisodeStore(path, FORMAT, read_only=True).close()
    assert read_format(path).format_version == 1
    EpisodeStore(path, FORMAT).close()
    assert read_format(path) == FORMAT
