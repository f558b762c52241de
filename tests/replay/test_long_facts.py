"""Episodes whose facts are longer than their frames: a segment, the log's files and memory are bounded all the same."""

import dataclasses
import subprocess
import sys

import pytest

from qtopt.replay import EpisodeStore, ReplayConfig, StoreFormat, rebuild_catalogue
from qtopt.replay.landed import SEGMENT_FACTS
from qtopt.replay.landing_log import FILE_FACTS
from tests.episodes import make_episode
from tests.replay.landed import spoil_frames
from tests.replay.test_landing_log import without_catalogue

FORMAT = StoreFormat.for_images(16)
LONG = {"log": "x" * (1_000_000)}
CONFIG = ReplayConfig(seal_after_s=0.0)


@pytest.fixture
def episodes(rng):
    return [dataclasses.replace(make_episode(rng, 1, size_px=16), metadata=LONG) for _ in range(36)]


@pytest.fixture
def path(tmp_path, episodes, monkeypatch):
    """A closed store of which nothing is sealed."""
    monkeypatch.setattr(EpisodeStore, "_keep_house", lambda store: None)
    with EpisodeStore(tmp_path / "store", FORMAT, CONFIG) as store:
        for number, episode in enumerate(episodes, 1):
            store.append(episode)
            assert store._shelf.due(0.0) is (number * 1_000_000 >= SEGMENT_FACTS)
    return tmp_path / "store"


def test_they_fill_files_and_segments(path, episodes):
    sizes = [file.stat().st_size for file in (path / "landing").iterdir()]
    assert max(sizes) < FILE_FACTS + 3_000_000
    with EpisodeStore(path, config=CONFIG) as store:
        assert store._shelf.due(0.0)
        assert store.seal() == 2
        assert not store._shelf.due(0.0)
        assert store._shelf._landed.facts_bytes == 0
        first, rest = store._shelf.segments()
        assert first.episodes * 1_000_000 < SEGMENT_FACTS + 1_000_000
        assert first.episodes + rest.episodes == len(episodes)
        assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in episodes]
        assert store.read_episode(-1).metadata == LONG


def test_with_little_room_those_of_one_file_are_sealed(path, monkeypatch):
    with EpisodeStore(path, config=CONFIG) as store:
        monkeypatch.setattr(store._shelf._watch, "spare_bytes", lambda: 12_000_000)
        assert store.seal() == 4
        assert max(row.episodes for row in store._shelf.segments()) * 1_000_000 < 12_000_000
        assert not list((path / "landing").iterdir())


@pytest.mark.parametrize("lost", [False, True])
def test_the_catalogue_lost_they_are_landed_again_whole(path, episodes, lost):
    without_catalogue(path)
    if lost:
        assert rebuild_catalogue(path).landed == len(episodes)
    with EpisodeStore(path, config=CONFIG) as store:
        assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in episodes]
        assert all(episode.metadata == LONG for episode in store.episodes())


def test_of_several_records_the_sound_one_counts(path, episodes, tmp_path):
    before = set((path / "landing").iterdir())
    without_catalogue(path)
    EpisodeStore(path, config=CONFIG).close()
    for file in before:
        spoil_frames(file)
    with EpisodeStore(path, config=CONFIG) as store:
        assert store.verify().sound
        assert store.read_episode(0).metadata == LONG


def test_opening_and_sealing_hold_a_bounded_part_in_memory(path):
    """Peaks of a process of its own [MB]: it has opened and sealed another store before."""
    code = f"""
import re, numpy as np
from pathlib import Path
from qtopt.replay import EpisodeStore, ReplayConfig, StoreFormat
from tests.episodes import make_episode
def memory(key): return int(re.search(rf"{{key}}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
def peak(work):
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    work()
    return memory("VmHWM") - before
EpisodeStore._keep_house = lambda store: None
with EpisodeStore(Path({str(path.parent / "other")!r}), StoreFormat.for_images(16)) as store:
    store.append(make_episode(np.random.default_rng(0), 1))
    store.seal()
opened = []
print(peak(lambda: opened.append(EpisodeStore(Path({str(path)!r}), config=ReplayConfig(seal_after_s=0.0)))))
print(peak(opened[0].seal))
opened[0].close()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    opening, sealing = map(float, ran.stdout.split())
    assert opening < 30
    assert sealing < 4 * SEGMENT_FACTS / 2**20
