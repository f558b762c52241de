"""A directory that was made is flushed with those above it, by whoever comes first after a power cut or a kill, too."""

import contextlib
import os
from pathlib import Path

import pytest

from qtopt.durable import make_directory, write_text
from qtopt.errors import SchemaMismatch
from qtopt.loops.checkpoints import Checkpoints
from qtopt.replay import EpisodeStore, StoreFormat
from qtopt.rpc.registry import ModelRegistry
from robot_bridge.spool import Spool
from tests.episodes import make_episode


@pytest.fixture
def flushed(monkeypatch):
    """What was flushed so far; it is flushed all the same."""
    paths, fsync = [], os.fsync

    def noting(handle):
        fsync(handle)
        paths.append(Path(os.readlink(f"/proc/self/fd/{handle}")))

    monkeypatch.setattr(os, "fsync", noting)
    return paths


def test_all_that_was_missing_is_made_and_flushed(tmp_path, flushed):
    make_directory(tmp_path / "a" / "b" / "c")
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} == set(flushed)
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_one_that_is_there_is_flushed_again(tmp_path, flushed):
    (tmp_path / "a").mkdir()
    make_directory(tmp_path / "a")
    assert flushed == [tmp_path]


def test_a_relative_path_and_a_file_in_the_way(tmp_path, flushed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_directory(Path("a"))
    assert flushed == [tmp_path]
    Path("file").write_text("")
    with pytest.raises(OSError, match="file"):
        make_directory(Path("file") / "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_directory_made_for_us_where_we_may_not_look_is_used(tmp_path):
    (tmp_path / "theirs" / "ours").mkdir(parents=True)
    (tmp_path / "theirs").chmod(0o311)
    make_directory(tmp_path / "theirs" / "ours")
    (tmp_path / "theirs").chmod(0o755)


OWNERS = {
    "spool": lambda path: Spool(path).close(),
    "checkpoints": Checkpoints,
    "networks": ModelRegistry,
    "store": lambda path: EpisodeStore(path, StoreFormat.for_images(16)).close(),
}


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("killed", [False, True], ids=["new", "killed before the flush"])
def test_each_owner_of_a_directory_flushes_it(tmp_path, flushed, owner, killed):
    root = tmp_path / "deep" / owner
    if killed:
        root.mkdir(parents=True)
    OWNERS[owner](root)
    assert {tmp_path / "deep"} | (set() if killed else {tmp_path}) <= set(flushed)


def test_a_spool_s_quarantine_is_flushed(tmp_path, rng, flushed):
    with contextlib.closing(Spool(tmp_path / "spool")) as spool:
        flushed.clear()
        with pytest.raises(SchemaMismatch):
            spool.put(make_episode(rng, 2, uuid="none"))
    assert {tmp_path / "spool", tmp_path / "spool" / "quarantine"} <= set(flushed)


@pytest.mark.parametrize("killed", [False, True], ids=["new", "killed before the flush"])
def test_the_landing_log_s_and_the_segments_directories_are_flushed(tmp_path, rng, flushed, killed):
    with EpisodeStore(tmp_path / "store", StoreFormat.for_images(16)) as store:
        assert (tmp_path / "store") in flushed[-2:]  # with ``segments``, the last that was made
        if killed:
            (tmp_path / "store" / "landing").mkdir()
        flushed.clear()
        store.append(make_episode(rng, 2))
        assert {tmp_path / "store", tmp_path / "store" / "landing"} <= set(flushed)


def test_a_text_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.json"
    write_text(path, "first")
    write_text(path, "second")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "third" * 10_000 + "\ud800")
    assert path.read_text() == "second"
