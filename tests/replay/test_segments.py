"""Sealed segments as other programs see them."""

import json

import numpy as np
import pytest
import tensorstore
import zarr

from qtopt import specs
from qtopt.replay import EpisodeStore, StoreFormat
from qtopt.replay.schema import STEP_DTYPE
from tests.episodes import make_episode


@pytest.fixture(params=["raw", "jpeg"])
def sealed(request, tmp_path, rng):
    """A sealed segment and the episodes in it; the frames of the second kind span chunks."""
    size = 16 if request.param == "raw" else 300
    episodes = [make_episode(rng, steps, size_px=size, success=False) for steps in (1, 4, 7)]
    with EpisodeStore(tmp_path / "store", StoreFormat.for_images(size, codec=request.param)) as store:
        for episode in episodes:
            store.append(episode)
        store.seal()
        frames = [frame for episode in store.episodes() for frame in episode.images]
    return tmp_path / "store" / "segments" / "00000000.zarr", episodes, np.stack(frames), request.param


def open_tensorstore(path, name):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / name)}}
    return tensorstore.open(spec, open=True).result()


def decode(flat, offsets, sizes, shape, codec):
    if codec == "raw":
        return flat.reshape(shape)
    import cv2

    images = [cv2.imdecode(flat[a : a + n], cv2.IMREAD_COLOR)[:, :, ::-1] for a, n in zip(offsets, sizes, strict=True)]
    return np.stack(images)


@pytest.mark.parametrize("reader", ["zarr", "tensorstore"])
def test_other_readers_see_the_same(sealed, reader):
    path, episodes, frames, codec = sealed
    if reader == "zarr":
        group = zarr.open_group(path, mode="r")
        read = {name: group[name][...] for name in group.array_keys()}
    else:
        names = [entry.name for entry in path.iterdir() if entry.is_dir()]
        read = {name: open_tensorstore(path, name).read().result() for name in names}
    images = decode(read["frames"], read["frame_offset"], read["frame_bytes"], frames.shape, codec)
    assert np.abs(images.astype(int) - frames).max() <= (0 if codec == "raw" else 2)
    rows = np.concatenate([[first, *[0] * length] for first, length in zip([1, 1, 1], [1, 4, 7], strict=True)])
    assert np.array_equal(np.flatnonzero(rows), read["episode_first_row"])
    for spec in specs.EPISODE_SPECS[1:]:
        found = read[spec.name]
        assert found.shape == (15, *spec.shape[1:])
        for episode, start in zip(episodes, read["episode_first_row"], strict=True):
            values = getattr(episode, spec.name)
            assert np.array_equal(found[start : start + len(values)], values), spec.name
    assert [value.tobytes().hex() for value in read["episode_uuid"]] == [episode.uuid for episode in episodes]
    assert read["episode_length"].tolist() == [1, 4, 7]
    facts = read["episode_facts_json"].tobytes()[: read["episode_facts_end"][0]]
    assert json.loads(facts) == {"collector": "test", "metadata": {"seed": 7}}


def test_one_frame_can_be_read_alone(sealed):
    path, _, frames, codec = sealed
    if codec != "raw":
        pytest.skip("a frame is one chunk where all have one size")
    flat = open_tensorstore(path, "frames")
    size = frames[0].size
    assert flat.chunk_layout.read_chunk.shape == (size,)
    assert np.array_equal(flat[5 * size : 6 * size].read().result(), frames[5].reshape(-1))


def test_a_segment_is_few_files(sealed):
    path, *_ = sealed
    files = [entry for entry in path.rglob("*") if entry.is_file()]
    assert len(files) < 60
    assert (path / "frames" / "c" / "0").is_file()
    assert {name for name in STEP_DTYPE.names} < {entry.name for entry in path.iterdir()}


def test_the_attributes_say_what_it_is(sealed):
    path, _, frames, codec = sealed
    attributes = dict(zarr.open_group(path, mode="r").attrs)
    assert attributes["format"] == "qtopt-episode-store"
    assert attributes["schema_version"] == specs.SCHEMA_VERSION
    assert attributes["image"] == list(frames.shape[1:])
    assert attributes["frame_codec"] == codec
    assert attributes["action_fields"] == list(specs.ACTION_FIELDS)
