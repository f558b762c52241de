"""A disk with next to no room: it is opened, nothing is lost, and what needs room waits for it."""

import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import structlog

from qtopt.errors import StoreFull
from qtopt.replay import EpisodeStore, ReplayConfig, StoreFormat, back_up, episode_store
from tests.episodes import make_episode
from tests.waiting import wait_until

FORMAT = StoreFormat.for_images(48)
CONFIG = ReplayConfig(min_free_mb=0.0)


def free_bytes(disk):
    state = os.statvfs(disk)
    return state.f_bavail * state.f_frsize


def fill_up(disk, left_bytes):
    """Takes the room of a disk but for ``left_bytes``; returns the file to remove."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(free_bytes(disk) - left_bytes))
    return ballast


@contextmanager
def least_free(disk):
    """Yields a list that holds, after the block, the least room that was seen in it."""
    ended, seen = threading.Event(), [free_bytes(disk)]

    def watch():
        while not ended.wait(0.0005):
            seen[0] = min(seen[0], free_bytes(disk))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


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


class TestReserve:
    """Sealing leaves alone what is kept free, and so do episodes that come meanwhile."""

    CONFIG = ReplayConfig(segment_mb=4.0, min_free_mb=2.0)

    def fill(self, store, rng, count=60):
        uuids = [f"{number:032x}" for number in range(count)]
        for uuid in uuids:
            store.append(make_episode(rng, 8, size_px=48, uuid=uuid))
        return uuids

    def test_without_room_nothing_is_written_and_with_room_all_is_sealed(self, small_disk, rng):
        with EpisodeStore(small_disk / "store", FORMAT, self.CONFIG) as store:
            uuids = self.fill(store, rng)
            ballast = fill_up(small_disk, 3_500_000)
            with least_free(small_disk) as least, pytest.raises(StoreFull, match="beyond what is kept free"):
                store.seal()
            assert least[0] > 3_400_000
            assert store.condition().writable
            ballast.unlink()
            assert store.seal() == 1
        assert served(small_disk / "store") == uuids

    def test_with_room_for_a_part_it_is_sealed_part_by_part(self, small_disk, rng):
        with EpisodeStore(small_disk / "store", FORMAT, self.CONFIG) as store:
            uuids = self.fill(store, rng)
            fill_up(small_disk, 4_500_000)
            with least_free(small_disk) as least:
                assert store.seal() > 2
            assert least[0] > 2_000_000
            assert not list((small_disk / "store" / "landing").iterdir())
        assert served(small_disk / "store") == uuids

    def test_it_is_said_once_and_done_when_there_is_room(self, small_disk, rng, monkeypatch):
        monkeypatch.setattr(episode_store, "_TICK_S", 0.01)
        monkeypatch.setattr(episode_store, "_RETRY_SEAL_S", 0.01)
        EpisodeStore(small_disk / "store", FORMAT, self.CONFIG).close()
        ballast = fill_up(small_disk, 2_800_000)
        with (
            structlog.testing.capture_logs() as logs,
            EpisodeStore(small_disk / "store", config=replace(self.CONFIG, seal_after_s=0.01)) as store,
        ):
            self.fill(store, rng, 4)
            wait_until(lambda: "sealed" in store._failing)
            threading.Event().wait(0.3)
            assert [entry["event"] for entry in logs] == ["nothing could be sealed; trying again"]
            ballast.unlink()
            wait_until(lambda: store.stats()["segments"])
            wait_until(lambda: "what waited is sealed" in [entry["event"] for entry in logs])
