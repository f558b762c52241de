"""The column that came later: old stores, messages and files are read as before; new ones keep it, checked.

``before_interventions.zip`` was written by the release before: a store of three episodes (two sealed, one landed), the
first one as a message and as a spooled file.
"""

import dataclasses
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from qtopt import cli
from qtopt.digest import content_digest
from qtopt.errors import CorruptEpisode, EpisodeConflict
from qtopt.replay import EpisodeStore, ReplayConfig, StoreFormat, rebuild_catalogue
from qtopt.replay.schema import rows_from_bytes
from qtopt.replay.verify import former_digest
from qtopt.rpc import codec
from qtopt.rpc.gen import types_pb2 as pb
from robot_bridge import spooled
from tests.episodes import make_episode
from tests.replay.test_store import assert_same_episode

FIRST_DIGEST = "b09d61133285c4eac0a41fc34f32ee33363200b23f317c6d0079e7b99eeb67a7"
FORMAT = StoreFormat.for_images(16)


@pytest.fixture
def before(tmp_path):
    """What the release before wrote."""
    with zipfile.ZipFile(Path(__file__).parent / "before_interventions.zip") as archive:
        archive.extractall(tmp_path / "before")
    return tmp_path / "before"


@pytest.fixture
def originals():
    """The episodes in it."""
    rng = np.random.default_rng(0)
    return [make_episode(rng, 2 + number, size_px=16) for number in range(3)]


def taken_over(episode, *steps):
    flags = np.zeros(len(episode), np.bool_)
    flags[list(steps)] = True
    return dataclasses.replace(episode, is_intervention=flags)


def test_an_old_store_opens_is_sound_and_goes_on(before, originals, rng):
    more = taken_over(make_episode(rng, 4, size_px=16), 1, 2)
    with EpisodeStore(before / "store") as store:
        report = store.verify()
        assert report.sound, (report.damaged, report.notes)
        for found, expected in zip(store.episodes(), originals, strict=True):
            assert_same_episode(found, expected)
            assert not found.is_intervention.any()
        assert not store.append(originals[0])  # known, by its content: its digest was made in another way
        with pytest.raises(EpisodeConflict):
            store.append(dataclasses.replace(originals[0], collector="another"))
        assert store.append(more)
        store.seal()
    with EpisodeStore(before / "store") as store:
        assert store.verify().sound
        assert_same_episode(store.read_episode(-1), more)
        assert len(store.sample_transitions(50, 5.0)) == 50


def test_the_catalogue_of_an_old_store_is_rebuilt(before, originals):
    rebuilt = rebuild_catalogue(before / "store")
    assert (rebuilt.episodes, rebuilt.landed, rebuilt.notes) == (2, 1, [])
    with EpisodeStore(before / "store") as store:
        for found, expected in zip(store.episodes(), originals, strict=True):
            assert_same_episode(found, expected)


def test_an_old_message_and_an_old_file_are_read(before, originals):
    assert former_digest(originals[0]).hex() == FIRST_DIGEST
    message = pb.Episode.FromString((before / "episode.pb").read_bytes())
    assert_same_episode(codec.decode_episode(message), originals[0])
    assert_same_episode(spooled.decode_episode(before / "episode.safetensors"), originals[0])


def test_without_interventions_old_readers_get_what_they_know(before, originals):
    assert (
        codec.encode_episode(originals[0]).SerializeToString(deterministic=True) == (before / "episode.pb").read_bytes()
    )
    file = before / "episode.safetensors"
    old, new = (load(content) for content in (file.read_bytes(), spooled.encode_episode(originals[0])))
    assert old.keys() == new.keys()
    assert spooled.said_digest(spooled.encode_episode(originals[0])) == spooled.said_digest(file)


def test_flags_survive_the_wire_the_spool_and_the_disk(tmp_path, rng):
    episode = taken_over(make_episode(rng, 5, size_px=16), 0, 4)
    message = pb.Episode.FromString(codec.encode_episode(episode).SerializeToString())
    assert_same_episode(codec.decode_episode(message), episode)
    (tmp_path / "file").write_bytes(spooled.encode_episode(episode))
    assert_same_episode(spooled.decode_episode(tmp_path / "file"), episode)
    for sealed in (False, True):
        root = tmp_path / f"store-{sealed}"
        with EpisodeStore(root, FORMAT, ReplayConfig(segment_mb=0.001)) as store:
            store.append(episode)
            if sealed:
                store.seal()
        rebuild_catalogue(root)
        with EpisodeStore(root) as store:
            assert_same_episode(store.read_episode(0), episode)
            assert store.verify().sound


def test_flags_are_part_of_the_content(rng):
    episode = make_episode(rng, 3, size_px=16)
    flagged = taken_over(episode, 1)
    assert content_digest(flagged) != content_digest(episode)
    assert former_digest(flagged) != former_digest(episode)
    message = codec.encode_episode(flagged)
    assert message.digest != codec.encode_episode(episode).digest
    message.is_intervention = b""
    with pytest.raises(Exception, match="does not match its SHA-256"):
        codec.decode_episode(message)


def test_a_lost_column_costs_only_the_episodes_that_need_it(tmp_path, rng):
    plain, flagged = make_episode(rng, 3, size_px=16), taken_over(make_episode(rng, 3, size_px=16), 1)
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        store.append(plain)
        store.append(flagged)
        store.seal()
    path = next((tmp_path / "store" / "segments").glob("*.zarr")) / "is_intervention" / "c" / "0"
    content = bytearray(path.read_bytes())
    content[:-4] = bytes(len(content) - 4)
    path.write_bytes(content)
    with EpisodeStore(tmp_path / "store") as store:
        report = store.verify()
        assert [damaged.uuid for damaged in report.damaged] == [flagged.uuid]
        assert_same_episode(store.read_episode(plain.uuid), plain)


def test_a_new_segment_does_not_pass_for_an_old_one(tmp_path, rng):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        store.append(make_episode(rng, 3, size_px=16))
        store.seal()
    shutil.rmtree(next((tmp_path / "store" / "segments").glob("*.zarr")) / "is_intervention")
    with EpisodeStore(tmp_path / "store") as store:
        assert not store.verify().sound


def test_rows_of_no_episode_are_refused():
    with pytest.raises(CorruptEpisode, match="5 bytes, expected 2 rows"):
        rows_from_bytes([b"12345"], [2])


def test_show_tells_who_acted(tmp_path, rng, capsys):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        store.append(taken_over(make_episode(rng, 4, size_px=16), 2))
    words = ["data", "show", "--store", str(tmp_path / "store"), "--output", str(tmp_path / "episode.png")]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert out.count("scripted!") == 1
    assert "a person took over: 1 of 4 steps" in out
