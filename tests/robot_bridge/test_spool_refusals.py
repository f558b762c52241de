"""What no server takes, what one server does not take, and what the disk does not give: no robot stops for it."""

import contextlib
import dataclasses
import os
import resource
import threading

import numpy as np
import pytest

from qtopt.errors import CorruptEpisode, SchemaMismatch, StoreError, StoreFull
from qtopt.legal import MAX_METADATA, MAX_METADATA_DEPTH
from robot_bridge import spooled
from robot_bridge.spool import Spool
from robot_bridge.spooled import decode_episode, encode_episode
from tests.episodes import make_episode, nested
from tests.robot_bridge.sinks import PickySink, Sink, uuids


@pytest.fixture
def spool(tmp_path):
    with contextlib.closing(Spool(tmp_path)) as spool:
        yield spool


@pytest.fixture
def episodes(rng):
    return [make_episode(rng, steps=2) for _ in range(8)]


def fill(spool, episodes):
    for episode in episodes:
        spool.put(episode)


def refuse(spool, sink, times, kind=StoreError):
    for _ in range(times):
        with pytest.raises(kind):
            spool.deliver(sink, 20)


@contextlib.contextmanager
def no_file_can_be_opened():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


ILLEGAL = {
    "NaN in metadata": {"metadata": {"force_n": float("nan")}},
    "metadata too long": {"metadata": {"log": "x" * MAX_METADATA}},
    "metadata too deep": {"metadata": nested(MAX_METADATA_DEPTH + 1)},
    "metadata without a bottom": {"metadata": nested(100_000)},
    "an array in metadata": {"metadata": {"joints": np.zeros(3)}},
    "keys that are no text": {"metadata": {(1, 2): 3}},
    "NaN in an array": {"tool_pose": np.full((3, 4), np.nan, np.float32)},
    "another dtype": {"rewards": np.zeros(2)},
    "no numbers": {"rewards": np.array([None, None])},
    "no action": {"actions": np.zeros((0, 8), np.float32)},
    "a UUID that leads elsewhere": {"uuid": "../../elsewhere"},
    "a version beyond the wire": {"policy_version": 2**63},
    "a name that is no text": {"collector": "arm-\ud800"},
    "a name too long": {"collector": "x" * 257},
}


@pytest.mark.parametrize("what", ILLEGAL)
def test_an_episode_that_no_server_takes_is_set_aside_at_once_and_said(spool, episodes, what, tmp_path, caplog):
    bad = dataclasses.replace(episodes[0], **ILLEGAL[what])
    with pytest.raises(SchemaMismatch) as told:
        spool.put(bad)
    assert (len(spool), spool.set_aside) == (0, 1)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(told.value) in caplog.text
    (file,) = (tmp_path / "quarantine").iterdir()
    if what == "an array in metadata":  # which the file has in words
        assert "array([0., 0., 0.])" in decode_episode(file).metadata["joints"]
    else:
        with pytest.raises(CorruptEpisode):  # moved back as it is, it is set aside again
            decode_episode(file)
    assert not list(tmp_path.parent.glob("*elsewhere*"))
    spool.put(episodes[1])
    assert spool.deliver(Sink(), 20) == 1


def test_what_is_set_aside_so_is_bounded_too(tmp_path, episodes):
    bad = [dataclasses.replace(episode, metadata={"force_n": float("inf")}) for episode in episodes]
    with contextlib.closing(Spool(tmp_path, max_bytes=2 * len(encode_episode(bad[0])))) as spool:
        for episode in bad[:2]:
            with pytest.raises(SchemaMismatch):
                spool.put(episode)
        with pytest.raises(StoreFull, match=r"no room beside .* bytes in quarantine.*see why such episodes are made"):
            spool.put(bad[2])
        fill(spool, episodes[3:4])
        assert (len(spool), spool.set_aside) == (1, 2)


def test_after_a_delivery_a_mismatch_is_the_refusal_of_one_episode(spool, episodes, caplog):
    sink = PickySink()
    fill(spool, episodes[:1])
    assert spool.deliver(sink, 20) == 1
    sink.refused = {episodes[1].uuid: SchemaMismatch("found a flag that is neither 0 nor 1")}
    fill(spool, episodes[1:3])
    refuse(spool, sink, 9)
    assert spool.deliver(sink, 20) == 1
    assert (uuids(sink.episodes), spool.set_aside) == (uuids([episodes[0], episodes[2]]), 1)
    assert "neither 0 nor 1; set aside as" in caplog.text


def test_a_mismatch_of_everything_made_here_is_told(spool, episodes):
    sink = Sink()
    sink.error = SchemaMismatch("another kind of episodes")
    fill(spool, episodes)
    with pytest.raises(SchemaMismatch, match="another kind"):
        spool.deliver(sink, 20)
    assert (len(spool), spool.set_aside) == (8, 0)


def test_a_mismatch_of_what_an_earlier_process_left_does_not_end_the_next_one(tmp_path, episodes):
    with contextlib.closing(Spool(tmp_path)) as earlier:
        fill(earlier, episodes[:2])
    sink = PickySink()
    sink.refused = {episodes[0].uuid: SchemaMismatch("another size")}
    with contextlib.closing(Spool(tmp_path)) as spool:
        fill(spool, episodes[2:3])
        refuse(spool, sink, 9)
        assert spool.deliver(sink, 20) == 2
        assert (len(spool), spool.set_aside) == (0, 1)
    with contextlib.closing(Spool(tmp_path)) as spool:
        sink.error = SchemaMismatch("another kind of episodes")
        fill(spool, episodes[3:4])
        with pytest.raises(SchemaMismatch, match="another kind"):
            spool.deliver(sink, 20)


def test_a_file_that_cannot_be_opened_now_waits(spool, episodes):
    sink = Sink()
    fill(spool, episodes)
    with no_file_can_be_opened():
        refuse(spool, sink, 30)
    assert (len(spool), spool.set_aside) == (8, 0)
    assert spool.deliver(sink, 20) == 8
    assert uuids(sink.episodes) == uuids(episodes)


def test_a_file_that_the_disk_never_gives_holds_nobody_up(spool, episodes, tmp_path, caplog):
    sink = Sink()
    fill(spool, episodes[:3])
    lost = next(tmp_path.glob(f"*{episodes[0].uuid}*"))
    lost.rename(tmp_path / "elsewhere")
    (tmp_path / lost.name).mkdir()  # its opening fails, whoever asks
    refuse(spool, sink, 9)
    assert spool.deliver(sink, 20) == 2
    assert spool.set_aside == 1
    assert "Is a directory" in caplog.text


def test_a_file_that_is_gone_holds_nobody_up(spool, episodes, tmp_path, caplog):
    sink = Sink()
    fill(spool, episodes[:2])
    next(tmp_path.glob(f"*{episodes[0].uuid}*")).unlink()
    refuse(spool, sink, 9)
    assert spool.deliver(sink, 20) == 1
    assert len(spool) == 0
    assert "left out until the next start" in caplog.text


def test_a_file_is_read_and_not_mapped(episodes, tmp_path):
    """A pipe cannot be mapped; of what is mapped, a bad sector would end the process."""
    os.mkfifo(tmp_path / "file")
    content = encode_episode(episodes[0])
    writer = threading.Thread(target=lambda: (tmp_path / "file").write_bytes(content), daemon=True)
    writer.start()
    assert decode_episode(tmp_path / "file").uuid == episodes[0].uuid
    writer.join(10)


def test_files_of_the_version_before_are_delivered(spool, episodes, monkeypatch):
    fill(spool, episodes[:1])
    monkeypatch.setattr(spooled, "SCHEMA_VERSION", spooled.SCHEMA_VERSION + 1)
    sink = Sink()
    assert spool.deliver(sink, 20) == 1
    assert uuids(sink.episodes) == uuids(episodes[:1])


def test_files_of_a_version_to_come_are_refused_and_not_taken_for_damaged(spool, episodes, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(spooled, "SCHEMA_VERSION", spooled.SCHEMA_VERSION + 1)
        fill(spool, episodes[:1])
    refuse(spool, Sink(), 20)
    assert (len(spool), spool.set_aside) == (1, 0)
    with pytest.raises(SchemaMismatch, match=r"found schema version 2, expected 1 to 1; use the release"):
        spool.load(episodes[0].uuid)


def test_of_what_is_refused_for_long_a_few_are_offered_in_turn(spool, episodes):
    sink = PickySink()
    sink.error = StoreError("the catalogue is damaged")
    fill(spool, episodes)
    most = 0
    for _ in range(80):
        sink.asked.clear()
        refuse(spool, sink, 1)
        most = max(most, len(sink.asked))
    assert most <= 5
    asked = []
    for _ in range(5):
        sink.asked.clear()
        refuse(spool, sink, 1)
        assert len(sink.asked) == 3
        asked += sink.asked
    assert asked.count(episodes[0].uuid) == 5
    assert set(asked) == set(uuids(episodes))
    sink.error = None
    assert spool.deliver(sink, 20) == 8
    assert uuids(sink.episodes) == uuids(episodes)
    assert spool.set_aside == 0


def test_several_that_are_at_fault_are_set_aside_in_the_end(spool, episodes):
    sink = PickySink()
    sink.refused = dict.fromkeys(uuids(episodes[:6]), CorruptEpisode("damaged on the way"))
    fill(spool, episodes)
    for _ in range(150):
        with contextlib.suppress(CorruptEpisode):
            spool.deliver(sink, 20)
    assert set(uuids(sink.episodes)) == set(uuids(episodes[6:]))
    assert spool.set_aside + len(spool) == 6
    late = make_episode(np.random.default_rng(1), steps=2)
    spool.put(late)
    for _ in range(150):
        with contextlib.suppress(CorruptEpisode):
            spool.deliver(sink, 20)
    assert (len(spool), spool.set_aside) == (0, 6)
