"""What a store says of its disk."""

import contextlib
import os
import re
import sqlite3
import subprocess
import threading
import time

import pytest

from qtopt.apps.drills.disks import BreakableDisk
from qtopt.errors import StoreError, StoreFull
from qtopt.replay import EpisodeStore, MemoryStore, ReplayConfig, StoreFormat, condition, landing_log
from qtopt.rpc.status import to_status
from tests.episodes import make_episode
from tests.mounting import mounted_or_skipped

FORMAT = StoreFormat.for_images(16)


def test_a_disk_with_room_takes_episodes(tmp_path, rng):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        assert store.append(make_episode(rng))
        found = store.condition()
        assert (found.writable, found.reason) == (True, "")
        assert found.free_bytes > 0
        assert store.stats()["free_bytes"] == pytest.approx(found.free_bytes, rel=0.1)  # others write beside it
    with MemoryStore(FORMAT) as store:
        assert store.condition().writable


def test_too_little_room_refuses_before_the_disk_is_full(tmp_path, rng):
    with EpisodeStore(tmp_path / "store", FORMAT, ReplayConfig(min_free_mb=1e9)) as store:
        assert not store.condition().writable
        with pytest.raises(StoreFull, match="MB left, expected 1e\\+09 or more; nothing was stored: free disk space"):
            store.append(make_episode(rng))
        assert store.stats()["writable"] == 0.0
        assert len(store) == 0


def test_a_disk_that_is_gone_refuses_and_takes_episodes_when_it_is_back(tmp_path, rng):
    root, aside = tmp_path / "store", tmp_path / "aside"
    with EpisodeStore(root, FORMAT) as store:
        root.rename(aside)
        with pytest.raises(StoreFull, match=r"No such file or directory.*; nothing was acknowledged: see to the disk"):
            store.append(make_episode(rng))
        assert "No such file" in store.condition().reason
        aside.rename(root)
        assert store.condition().writable
        assert store.append(make_episode(rng))


@pytest.fixture
def breakable(tmp_path):
    with mounted_or_skipped(BreakableDisk(tmp_path / "disk", 16)) as disk:
        yield disk


def test_a_disk_that_found_an_error_is_told_before_it_refuses_anything(breakable, tmp_path, rng):
    with EpisodeStore(tmp_path / "disk" / "store", FORMAT, ReplayConfig(min_free_mb=1.0)) as store:
        assert store.append(make_episode(rng, 2, size_px=16))
        assert store.condition().writable
        breakable.break_it()
        found = store.condition()
        assert not found.writable
        assert re.match(r"the disk is read-only \(.*Read-only file system", found.reason)
        with pytest.raises(StoreFull, match="Read-only file system"):
            store.append(make_episode(rng, 2, size_px=16))


def test_so_is_one_that_is_mounted_read_only_until_it_is_no_longer(small_disk, rng):
    def mount(*words):
        subprocess.run(["mount", *words, str(small_disk)], check=True)

    with EpisodeStore(small_disk / "store", FORMAT, ReplayConfig(min_free_mb=1.0)) as store:
        assert store.append(make_episode(rng, 2, size_px=16))
        mount("--bind", str(small_disk))
        try:
            mount("-o", "remount,ro,bind")
            assert "the disk is read-only" in store.condition().reason
            assert store.stats()["writable"] == store.info()["writable"] == 0.0
        finally:
            subprocess.run(["umount", str(small_disk)], check=True)
        assert store.condition().writable
        assert store.stats()["writable"] == 1.0
        assert store.append(make_episode(rng, 2, size_px=16))


def test_figures_write_nothing_to_see_whether_the_disk_takes_it(tmp_path):
    root = tmp_path / "store"
    with EpisodeStore(root, FORMAT) as store:
        before_ns = root.stat().st_ctime_ns
        time.sleep(0.05)  # the clock of files is coarse
        assert store.stats()["writable"] == 1.0
        assert root.stat().st_ctime_ns == before_ns
        assert store.condition().writable
        assert root.stat().st_ctime_ns > before_ns


def test_a_disk_that_fails_within_a_commit_refuses(tmp_path):
    watch = condition.DiskWatch(tmp_path, 0.0, lambda: None)
    with pytest.raises(StoreFull, match="Input/output error"), watch.commit(1):
        raise OSError(5, "Input/output error")
    assert watch.condition().writable


def test_a_failed_commit_is_remembered_until_the_disk_can_be_written(tmp_path, rng, monkeypatch):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        episode = make_episode(rng)
        with monkeypatch.context() as patch:
            patch.setattr(store._shelf.catalogue, "enter", _refuse)
            with pytest.raises(StoreFull, match="as if"):
                store.append(episode)
            patch.setattr(condition.os, "fsync", _fail)
            assert store.condition().reason == "as if the disk were full"
        assert store.condition().writable  # tried, with a file of its own
        assert sorted(entry.name for entry in (tmp_path / "store").glob("probe*")) == []
        assert store.append(episode)


def test_a_landing_log_that_takes_no_file_is_told_until_it_does(tmp_path, rng):
    episode = make_episode(rng)
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        in_the_way = tmp_path / "store" / "landing"
        in_the_way.write_bytes(b"")
        with pytest.raises(StoreFull, match="takes no file"):
            store.append(episode)
        for _ in range(2):
            assert "takes no file" in store.condition().reason
        in_the_way.unlink()
        assert store.condition().writable
        assert store.append(episode)
        assert [path.suffix for path in in_the_way.iterdir()] == [".log"]


def test_a_catalogue_that_cannot_be_written_is_told_until_it_can(tmp_path, rng):
    episode = make_episode(rng)
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        store._shelf.catalogue._writer.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreFull, match="readonly"):
            store.append(episode)
        for _ in range(2):
            assert "readonly" in store.condition().reason
        store._shelf.catalogue._writer.execute("PRAGMA query_only = 0")
        assert store.condition().writable
        assert store.append(episode)


def test_what_failed_for_another_reason_than_room_is_told_until_a_commit_succeeds(tmp_path, rng):
    def rename(old, new):
        with contextlib.closing(sqlite3.connect(tmp_path / "store" / "catalogue.db")) as catalogue:
            catalogue.execute(f"ALTER TABLE {old} RENAME TO {new}")

    episode = make_episode(rng)
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        rename("episode", "lost")
        for _ in range(2):
            with pytest.raises(StoreError, match="no such table"):
                store.append(episode)
            for _ in range(2):
                assert "no such table" in store.condition().reason
        rename("lost", "episode")
        assert store.append(episode)
        assert store.condition().writable


def test_so_is_a_fault_that_nobody_foresaw(tmp_path, rng, monkeypatch):
    episode = make_episode(rng)
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store._shelf.catalogue, "enter", lambda *_: {}["a fault"])
            with pytest.raises(KeyError):
                store.append(episode)
        assert store.condition().reason == "KeyError('a fault')"
        assert store.append(episode)
        assert store.condition().writable


def test_the_disk_counts_as_full_until_what_was_refused_would_have_room(tmp_path, rng, monkeypatch):
    episode = make_episode(rng, 5, size_px=16)
    sizes = []

    def refuse_large(handle):
        sizes.append(os.fstat(handle).st_size)
        _fail(handle)

    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        monkeypatch.setattr(store._shelf.catalogue, "enter", _refuse)
        with pytest.raises(StoreFull):
            store.append(episode)
        monkeypatch.setattr(condition.os, "fsync", refuse_large)
        assert not store.condition().writable
        assert sizes[0] > episode.images.nbytes
        assert list((tmp_path / "store").glob("probe*")) == []
        monkeypatch.undo()


def test_a_disk_that_does_not_answer_is_not_writable(tmp_path, rng, monkeypatch):
    answer = threading.Event()
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        flush = os.fdatasync

        def slow(handle):
            answer.wait(30)
            flush(handle)

        monkeypatch.setattr(os, "fdatasync", slow)
        monkeypatch.setattr(condition, "STALLED_S", 0.05)
        sender = threading.Thread(target=store.append, args=(make_episode(rng),))
        sender.start()
        try:
            while store.condition().writable:
                assert sender.is_alive()
            assert "has not answered" in store.condition().reason
        finally:
            answer.set()
            sender.join()
        assert store.condition().writable
        assert len(store) == 1


def _refuse(*_):
    raise StoreFull("as if the disk were full")


def _fail(_):
    raise OSError(28, "No space left on device")


def test_an_episode_that_is_known_is_no_sign_that_others_are_stored(tmp_path, rng, monkeypatch):
    known, new = make_episode(rng), make_episode(rng)
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        assert store.append(known)
        with monkeypatch.context() as patch:
            patch.setattr(store._shelf.catalogue, "enter", _break)
            with pytest.raises(StoreError, match="as if"):
                store.append(new)
            assert not store.append(known)
            assert "as if" in store.condition().reason
        assert store.append(new)
        assert store.condition().writable


def test_a_failed_append_does_not_tell_the_log_files_mark(tmp_path, rng, monkeypatch):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        store.append(make_episode(rng))
        with monkeypatch.context() as patch:
            patch.setattr(landing_log.os, "fdatasync", _fail)
            with pytest.raises(StoreFull) as raised:
                store.append(make_episode(rng))
    (log,) = (tmp_path / "store" / "landing").iterdir()
    mark = log.stem.partition("-")[2]
    assert len(mark) == 32
    assert mark not in str(raised.value)
    assert to_status(StoreError(f"{log}: whatever is wrong"))[1] == f"{log.stem[:8]}.log: whatever is wrong"


def _break(*_: object) -> None:
    raise StoreError("as if it could not be entered")
