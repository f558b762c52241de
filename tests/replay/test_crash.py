"""Killed at any moment, with no room on the disk: what was acknowledged is there."""

import math
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtopt.errors import StoreFull
from qtopt.replay import EpisodeStore, ReplayConfig, StoreFormat
from qtopt.replay.catalogue import Catalogue
from qtopt.replay.landing import land
from qtopt.replay.landing_log import LANDING, LandingLog
from qtopt.replay.record import encode_episode
from tests.episodes import make_episode
from tests.replay.writer import episode_of

ROUNDS = 6
ROOT = Path(__file__).resolve().parents[2]


def start_writer(path, first):
    command = [sys.executable, "-m", "tests.replay.writer", str(path), str(first)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert process.stdout.readline() == "started\n"
    return process


def wait_for_seal(segments, suffix):
    """Waits until another segment is being written (.tmp), or has just got its name (.zarr)."""
    before = set(segments.glob("*.zarr"))
    deadline = time.monotonic() + 30
    while set(segments.glob(f"*{suffix}")) <= before:
        assert time.monotonic() < deadline, "nothing was sealed"
        time.sleep(0.0005)


def test_kill_9_loses_nothing_acknowledged(tmp_path, rng):
    acknowledged = set()
    for round_ in range(ROUNDS):
        writer = start_writer(tmp_path / "store", 1000 * round_)
        heard = [writer.stdout.readline() for _ in range(int(rng.integers(1, 20)))]
        if round_ % 3:
            wait_for_seal(tmp_path / "store" / "segments", ".tmp" if round_ % 3 == 1 else ".zarr")
        time.sleep(rng.uniform(0.0, 0.05))
        writer.kill()
        with writer.stdout:
            heard += writer.stdout
        # A line that was cut off was not acknowledged to anybody.
        acknowledged |= {int(line) for line in heard if line.endswith("\n")}
        assert writer.wait() == -signal.SIGKILL
        with EpisodeStore(tmp_path / "store") as store:
            found = {}
            for episode in store.episodes():
                assert episode.uuid not in found
                found[episode.uuid] = episode
            assert {f"{seed:032x}" for seed in acknowledged} <= set(found)
            assert store.verify().sound
            assert store.stats()["quarantined"] == 0
            if found:
                store.sample_transitions(32, 0.0)
        for uuid, episode in found.items():
            expected = episode_of(int(uuid, 16))
            assert np.array_equal(episode.images, expected.images)
            assert np.array_equal(episode.actions, expected.actions)
        names = {entry.suffix for entry in (tmp_path / "store" / "segments").iterdir()}
        assert names <= {".zarr"}
    assert len(acknowledged) > 20
    assert any(list((tmp_path / "store" / "segments").iterdir()))


def test_the_lock_dies_with_its_process(tmp_path):
    writer = start_writer(tmp_path / "store", 0)
    try:
        with pytest.raises(Exception, match=f"process {writer.pid}"):
            EpisodeStore(tmp_path / "store")
    finally:
        writer.kill()
        writer.communicate()
    EpisodeStore(tmp_path / "store").close()


def test_a_store_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Otherwise a power cut soon after leaves an empty description, and a store that nobody can open."""
    flushed, fsync = [], os.fsync

    def note(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        flushed.append((path.name, path.stat().st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    StoreFormat.for_images(16).write(tmp_path / "store.json")
    assert flushed == [("store.tmp", (tmp_path / "store.json").stat().st_size)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["store.json"]


def fill(store, rng, most=4000):
    """Appends until the store is full; returns the acknowledged episodes and the one that was refused."""
    stored = []
    for _ in range(most):
        episode = make_episode(rng, 8, size_px=48)
        try:
            assert store.append(episode)
        except StoreFull:
            return stored, episode
        stored.append(episode)
    raise AssertionError("the store never became full")


def check(store, stored):
    assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in stored]
    assert store.verify().sound


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(small_disk, rng):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3 << 20))
    with EpisodeStore(small_disk / "store", StoreFormat.for_images(48), ReplayConfig(min_free_mb=0.0)) as store:
        stored, refused = fill(store, rng)
        assert len(stored) > 5
        for _ in range(3):
            with pytest.raises(StoreFull, match="free disk space"):
                store.append(refused)
        with pytest.raises(StoreFull):
            store.seal()
        check(store, stored)
        assert len(store.sample_transitions(64, 0.0)) == 64
        ballast.unlink()
        assert store.append(refused) is True
        stored.append(refused)
        check(store, stored)
    with EpisodeStore(small_disk / "store", config=ReplayConfig(min_free_mb=0.0)) as store:
        check(store, stored)
        assert store.append(refused) is False


def test_a_limit_on_file_size_is_a_full_disk(tmp_path, rng):
    """Works everywhere, and is how a quota shows."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with EpisodeStore(tmp_path / "store", StoreFormat.for_images(48)) as store:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, before[1]))
            stored, refused = fill(store, rng)
            check(store, stored)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert store.append(refused) is True
            check(store, [*stored, refused])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_large_store_opens_fast(tmp_path, rng):
    """10,000 episodes: what opening costs grows with their number, not with their size."""
    fmt = StoreFormat.for_images(16)
    EpisodeStore(tmp_path / "store", fmt).close()
    record = encode_episode(make_episode(rng, 2, size_px=16), fmt)
    catalogue = Catalogue(tmp_path / "store")
    records = [replace(record, row=replace(record.row, uuid=f"{number:032x}")) for number in range(10_000)]
    land(catalogue, LandingLog(tmp_path / "store" / LANDING, [], math.inf), records, 0)
    catalogue.close()
    started = time.process_time()
    with EpisodeStore(tmp_path / "store") as store:
        assert len(store) == 10_000
        assert time.process_time() - started < 5.0
        assert store.read_episode(-1).uuid == f"{9_999:032x}"
