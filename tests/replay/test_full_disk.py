"""A disk with next to no room: it is opened, nothing is lost, and what needs room waits for it."""

import os
import shutil

import pytest

from qtopt.errors import StoreFull
from qtopt.replay import EpisodeStore, ReplayConfig, StoreFormat, back_up
from tests.episodes import make_episode

FORMAT = StoreFormat.for_images(48)
CONFIG = ReplayConfig(min_free_mb=0.0)


def fill_up(disk, left_bytes):
    """Takes the room of a disk but for ``left_bytes``; returns the file to remove."""
    ballast = disk / "ballast"
    state = os.statvfs(disk)
    ballast.write_bytes(bytes(state.f_bavail * state.f_frsize - left_bytes))
    return ballast


def served(path, *, read_only=True):
    with EpisodeStore(path, config=CONFIG, read_only=read_only) as store:
        assert store.verify().sound
        return [episode.uuid for episode in store.episodes()]


class TestSealLost:
    """A segment has its name, and the power fails: neither its entry nor the newest episodes are in the catalogue."""

    @pytest.fixture
    def uuids(self, rng):
        return [f"{number:032x}" for number in range(20)]

    @pytest.fixture
    def path(self, small_disk, tmp_path, rng, uuids):
        path, earlier = small_disk / "store", tmp_path / "earlier.db"
        for part in (uuids[:4], uuids[4:]):
            with EpisodeStore(path, FORMAT, CONFIG) as store:
                for uuid in part:
                    store.append(make_episode(rng, 8, size_px=48, uuid=uuid))
            if part == uuids[:4]:
                shutil.copy(path / "catalogue.db", earlier)
        sealed = tmp_path / "sealed"
        shutil.copytree(path, sealed)
        with EpisodeStore(sealed) as store:
            store.seal()
        shutil.copytree(sealed / "segments", path / "segments", dirs_exist_ok=True)
        for file in path.glob("catalogue.db*"):
            file.unlink()
        shutil.copy(earlier, path / "catalogue.db")
        return path

    def test_without_room_it_opens_and_keeps_the_segment(self, path, small_disk, tmp_path, uuids, rng):
        segment = path / "segments" / "00000000.zarr"
        ballast = fill_up(small_disk, 500_000)
        with EpisodeStore(path, config=CONFIG) as store:
            assert len(store) == 4
            with pytest.raises(StoreFull):
                store.append(make_episode(rng, 8, size_px=48))
            with pytest.raises(StoreFull, match="what waits in the landing log"):
                store.seal()
            assert segment.exists()
            back_up(path, tmp_path / "copy")
            ballast.unlink()
            newest = make_episode(rng, 8, size_px=48)
            assert store.append(newest)
            assert len(store) == 21
            store.seal()
        assert served(path) == [*uuids, newest.uuid]
        assert served(tmp_path / "copy", read_only=False) == uuids

    def test_opened_with_room_it_removes_the_segment(self, path, small_disk, uuids):
        fill_up(small_disk, 500_000)
        assert served(path, read_only=False) == uuids[:4]
        (small_disk / "ballast").unlink()
        assert served(path, read_only=False) == uuids
        assert not list((path / "segments").iterdir())
