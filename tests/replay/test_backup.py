"""Copies of a store in use: complete, repeatable, and stores like any other."""

import shutil
import threading
from pathlib import Path

import pytest

from qtopt.errors import SchemaMismatch, StoreError
from qtopt.replay import (
    EpisodeStore,
    ReplayConfig,
    RetentionConfig,
    StoreFormat,
    back_up,
    backup,
    landing,
    read_format,
    rebuild_catalogue,
    restore,
)
from tests.episodes import make_episode

FORMAT = StoreFormat.for_images(16)


def fill(store, rng, count=3):
    episodes = [make_episode(rng, 3) for _ in range(count)]
    for episode in episodes:
        store.append(episode)
    return [episode.uuid for episode in episodes]


def uuids(path, unexplained=""):
    with EpisodeStore(path, read_only=True) as store:
        report = store.verify()
        assert unexplained in report.unexplained
        assert report.sound or unexplained
        return [episode.uuid for episode in store.episodes()]


@pytest.mark.parametrize("link", [False, True])
def test_a_copy_of_a_store_in_use_follows_it(tmp_path, rng, link):
    source, copy = tmp_path / "store", tmp_path / "copy"
    with EpisodeStore(source, FORMAT) as store:
        expected = fill(store, rng)
        store.seal()
        expected += fill(store, rng)
        assert back_up(source, copy, link=link).copied == 1
        assert uuids(copy) == expected
        store.seal()
        more = fill(store, rng)
        report = back_up(source, copy, link=link)
        assert (report.segments, report.copied, report.removed) == (2, 1, 0)
        assert uuids(copy) == expected + more
    with EpisodeStore(source, FORMAT, ReplayConfig(retention=RetentionConfig(max_gb=1e-9))) as store:
        store.retire()  # unless it has done so by itself by now
        report = back_up(source, copy, link=link)
        assert (report.segments, report.copied, report.removed) == (1, 0, 1)
        assert uuids(copy) == expected[3:] + more
    shard = "segments/00000001.zarr/frames/c/0"
    assert ((source / shard).stat().st_ino == (copy / shard).stat().st_ino) is link


def test_copies_made_while_everything_changes_are_sound(tmp_path, rng):
    source = tmp_path / "store"
    config = ReplayConfig(segment_mb=0.02, retention=RetentionConfig(max_gb=5e-5))
    stop, acknowledged = threading.Event(), []
    with EpisodeStore(source, FORMAT, config) as store:
        acknowledged += fill(store, rng)

        def work():
            while not stop.is_set():
                acknowledged.extend(fill(store, rng))
                store.seal()
                store.retire()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            copies = 0
            while copies < 4 or len(acknowledged) < 12:
                copies += 1
                before = list(acknowledged)
                back_up(source, tmp_path / "copy")
                found = uuids(tmp_path / "copy")
                after = list(acknowledged)
                assert len(set(found)) == len(found)
                start = next((n for n, uuid in enumerate(after) if uuid == found[0]), len(after))
                assert after[start : start + len(found)] == found[: len(after) - start]  # nothing left out in between
                assert set(before[start:]) <= set(found)
        finally:
            stop.set()
            thread.join()


def test_restored_it_is_a_store_again(tmp_path, rng):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        expected = fill(store, rng)
        store.seal()
        expected += fill(store, rng)
        back_up(tmp_path / "store", tmp_path / "copy")
    shutil.rmtree(tmp_path / "store")
    restore(tmp_path / "copy", tmp_path / "store")
    with EpisodeStore(tmp_path / "store") as store:
        assert [episode.uuid for episode in store.episodes()] == expected
        expected += fill(store, rng)
        store.seal()
    assert uuids(tmp_path / "store") == expected
    with pytest.raises(StoreError, match="is not empty"):
        restore(tmp_path / "copy", tmp_path / "store")


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_copy_interrupted_is_the_one_before(tmp_path, rng, monkeypatch):
    source, copy = tmp_path / "store", tmp_path / "copy"
    with EpisodeStore(source, FORMAT) as store:
        before = fill(store, rng)
        store.seal()
        back_up(source, copy)
        after = before + fill(store, rng)
        store.seal()
        for place, said in (("_copy_segment", ""), ("_finish", "a backup was interrupted: make it again")):
            with monkeypatch.context() as patch:
                patch.setattr(f"qtopt.replay.backup._Backup.{place}", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    back_up(source, copy)
            assert uuids(copy, said) == before
        back_up(source, copy)
    assert uuids(copy) == after


def test_a_copy_interrupted_between_log_and_catalogue_is_the_one_before(tmp_path, rng, monkeypatch):
    """What had landed then is sealed now, and the store's log has begun again under the same names."""
    source, copy = tmp_path / "store", tmp_path / "copy"
    with EpisodeStore(source, FORMAT) as store:
        before = fill(store, rng)
        back_up(source, copy)
        store.seal()
        after = before + fill(store, rng)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", interrupt)
            with pytest.raises(KeyboardInterrupt):
                back_up(source, copy)
        assert uuids(copy) == before
        back_up(source, copy)
    assert uuids(copy) == after
    with EpisodeStore(copy) as store:
        assert len(store) == len(after)


def test_a_seal_while_the_log_is_copied_leaves_nothing_out(tmp_path, rng, monkeypatch):
    source, copy = tmp_path / "store", tmp_path / "copy"
    with EpisodeStore(source, FORMAT) as store:
        expected = fill(store, rng)
        opened, copied = landing.open_files, backup._copy_log
        seals = [store.seal]

        def seal_then_open(directory):
            while seals:
                seals.pop()()
            return opened(directory)

        def seal_then_copy(file, to):
            store.seal()
            copied(file, to)

        monkeypatch.setattr(landing, "open_files", seal_then_open)
        back_up(source, copy)
        assert uuids(copy) == expected
        expected += fill(store, rng)
        monkeypatch.setattr(backup, "_copy_log", seal_then_copy)
        back_up(source, copy)
    assert uuids(copy) == expected


@pytest.mark.parametrize("link", [False, True])
def test_a_segment_given_up_while_it_is_copied_is_not_in_the_copy(tmp_path, rng, monkeypatch, link):
    """Its files go while they are copied: what the copy has of them is no segment."""
    source, copy, config = tmp_path / "store", tmp_path / "copy", ReplayConfig(retention=RetentionConfig(max_gb=1e-9))
    with EpisodeStore(source, FORMAT) as store:
        fill(store, rng)
        store.seal()
        expected = fill(store, rng)
        store.seal()
    with EpisodeStore(source, config=config) as store:
        store._closed.set()  # so that it gives nothing up by itself
        store._keeper.join()
        copytree = shutil.copytree

        def copy_beside_removal(here, *others, **settings):
            if Path(here).name == "00000000.zarr" and store._shelf.retire(1.0):
                shutil.rmtree(here / "frames" / "c")
            return copytree(here, *others, **settings)

        monkeypatch.setattr(backup.shutil, "copytree", copy_beside_removal)
        report = back_up(source, copy, link=link)
        assert (report.segments, report.copied) == (1, 1)
        assert uuids(copy) == expected
        assert [path.name for path in (copy / "segments").iterdir()] == ["00000001.zarr"]
        store._closed.clear()


def test_a_copy_is_renewed_with_its_store(tmp_path, rng):
    source, copy = tmp_path / "store", tmp_path / "copy"
    with EpisodeStore(source, FORMAT) as store:
        expected = fill(store, rng)
        store.seal()
    description = source / "store.json"
    description.write_text(description.read_text().replace('"format_version": 4', '"format_version": 1'))
    back_up(source, copy)
    assert read_format(copy).format_version == 1
    with EpisodeStore(source) as store:
        expected += fill(store, rng)
        back_up(source, copy)
    assert read_format(copy) == FORMAT
    assert uuids(copy) == expected


class TestRestoredAndInUse:
    """A restored store has its copy's identity; once it goes on the copy must not take its place."""

    @pytest.fixture
    def copy(self, tmp_path, rng):
        with EpisodeStore(tmp_path / "store", FORMAT) as store:
            fill(store, rng)
            store.seal()
            fill(store, rng)
        back_up(tmp_path / "store", tmp_path / "copy")
        return tmp_path / "copy"

    def assert_refused(self, copy, path, more):
        expected = uuids(path)
        said = rf"holds {more} episodes .* neither has nor has given up.*qtopt data merge --store \S+ --into \S+"
        for _ in range(2):
            with pytest.raises(StoreError, match=said):
                back_up(copy, path)
            assert uuids(path) == expected

    @pytest.mark.parametrize("seal", [False, True])
    def test_its_new_episodes_are_not_overwritten(self, tmp_path, copy, rng, seal):
        path = tmp_path / "restored"
        restore(copy, path)
        with EpisodeStore(path) as store:
            fill(store, rng, 5)
            if seal:
                store.seal()
        self.assert_refused(copy, path, 5)
        with EpisodeStore(copy) as store, EpisodeStore(path, read_only=True) as source:
            assert sum(map(store.take, source.records())) == 5
        back_up(copy, path)
        assert len(uuids(path)) == 11

    def test_also_when_its_catalogue_has_lost_them(self, tmp_path, copy, rng):
        path = tmp_path / "restored"
        restore(copy, path)
        shutil.copy(path / "catalogue.db", tmp_path / "earlier.db")
        with EpisodeStore(path) as store:
            fill(store, rng, 5)
        shutil.copy(tmp_path / "earlier.db", path / "catalogue.db")
        self.assert_refused(copy, path, 5)
        assert len(list((path / "landing").iterdir())) == 2
        with EpisodeStore(path) as store:
            assert len(store) == 11
            store.seal()
        for file in path.glob("catalogue.db*"):
            file.unlink()
        with pytest.raises(StoreError, match="holds 5 episodes"):
            back_up(copy, path)
        rebuild_catalogue(path)
        assert len(uuids(path)) == 11

    def test_where_it_cannot_be_told_nothing_is_changed(self, tmp_path, copy):
        restore(copy, tmp_path / "restored")
        damaged = bytes(4096) + (tmp_path / "restored" / "catalogue.db").read_bytes()[4096:]
        (tmp_path / "restored" / "catalogue.db").write_bytes(damaged)
        with pytest.raises(StoreError, match=r"cannot be told .* give another directory"):
            back_up(copy, tmp_path / "restored")
        assert (tmp_path / "restored" / "catalogue.db").read_bytes() == damaged

    def test_what_the_store_gave_up_goes_from_the_copy(self, tmp_path, copy, rng):
        """Episodes that the copy has sealed, and such as it has landed."""
        path = tmp_path / "store"
        with EpisodeStore(path, config=ReplayConfig(retention=RetentionConfig(max_gb=1e-9))) as store:
            store.seal()
            kept = fill(store, rng)
            store.seal()
            store.retire()  # unless it has done so by itself by now
        assert back_up(path, copy).removed == 1
        assert uuids(copy) == kept


def test_what_is_no_copy_of_this_store_is_left_alone(tmp_path, rng):
    for name in ("one", "other"):
        with EpisodeStore(tmp_path / name, FORMAT) as store:
            fill(store, rng)
            store.seal()
    back_up(tmp_path / "one", tmp_path / "copy")
    expected = uuids(tmp_path / "one")
    with pytest.raises(StoreError, match="is not of the store"):
        back_up(tmp_path / "other", tmp_path / "copy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds other things"):
        back_up(tmp_path / "one", tmp_path / "full")
    EpisodeStore(tmp_path / "large", StoreFormat.for_images(32)).close()
    with pytest.raises(SchemaMismatch, match="height: found 16, expected 32"):
        back_up(tmp_path / "large", tmp_path / "copy")
    with EpisodeStore(tmp_path / "copy"), pytest.raises(StoreError, match="being written by process"):
        back_up(tmp_path / "one", tmp_path / "copy")
    assert uuids(tmp_path / "copy") == expected
