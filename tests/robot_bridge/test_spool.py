"""Episodes on disk: nothing is lost, nothing is delivered twice, what is damaged is set aside."""

import dataclasses
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from qtopt.errors import (
    ConfigError,
    CorruptEpisode,
    EpisodeConflict,
    RemoteError,
    ServerUnavailable,
    StoreError,
    StoreFull,
)
from robot_bridge.spool import Spool
from tests.episodes import make_episode
from tests.robot_bridge.sinks import PickySink, Sink


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


def assert_same(one, two):
    for field in dataclasses.fields(one):
        left, right = getattr(one, field.name), getattr(two, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype
        else:
            assert left == right, field.name


def test_an_episode_comes_back_as_it_went_in(spool, episode):
    spool.put(episode)
    assert spool.pending() == [episode.uuid]
    assert_same(spool.load(episode.uuid), episode)
    spool.delivered(episode.uuid)
    spool.delivered(episode.uuid)
    assert len(spool) == 0


def test_a_known_episode_is_kept_once(spool, episode):
    spool.put(episode)
    spool.put(episode)
    assert len(spool) == 1
    with pytest.raises(EpisodeConflict, match="waits already with other content"):
        spool.put(dataclasses.replace(episode, policy_version=episode.policy_version + 1))
    assert_same(spool.load(episode.uuid), episode)


def test_openings_are_counted(tmp_path):
    for expected in range(3):
        spool = Spool(tmp_path)
        assert spool.openings == expected
        spool.close()


@pytest.mark.parametrize("name", ["x", "notes_of_monday", "12_", "²_a", "-1_a"])
def test_a_strangers_file_is_named_and_left_alone(tmp_path, episode, name, caplog):
    stranger = tmp_path / f"{name}.safetensors"
    stranger.write_bytes(b"somebody's")
    spool = Spool(tmp_path)
    assert stranger.name in caplog.text
    assert len(spool) == 0
    spool.put(episode)
    spool.close()
    again = Spool(tmp_path)
    assert again.pending() == [episode.uuid]
    assert stranger.read_bytes() == b"somebody's"
    again.close()


def test_order_and_content_survive_a_restart(tmp_path, rng):
    episodes = [make_episode(rng, steps=2) for _ in range(5)]
    spool = Spool(tmp_path)
    for episode in episodes[:4]:
        spool.put(episode)
    spool.delivered(episodes[1].uuid)
    spool.close()
    again = Spool(tmp_path)
    again.put(episodes[4])
    assert again.pending() == [episodes[index].uuid for index in (0, 2, 3, 4)]
    again.close()


def test_delivery_is_oldest_first_and_once(spool, rng):
    episodes = [make_episode(rng, steps=2) for _ in range(3)]
    for episode in episodes:
        spool.put(episode)
    sink = Sink()
    assert spool.deliver(sink, 2) == 2
    assert spool.deliver(sink, 10) == 1
    assert [episode.uuid for episode in sink.episodes] == [episode.uuid for episode in episodes]


def test_while_nobody_answers_everything_goes_on_waiting(spool, episode):
    spool.put(episode)
    sink = Sink()
    sink.error = ServerUnavailable("away")
    with pytest.raises(ServerUnavailable):
        spool.deliver(sink, 10)
    assert len(spool) == 1


def test_a_conflict_is_set_aside_and_does_not_stop_the_others(spool, rng, tmp_path, caplog):
    spool.put(make_episode(rng, steps=2))
    sink = Sink()
    sink.error = EpisodeConflict("known with other content")
    assert spool.deliver(sink, 10) == 0
    assert len(spool) == 0
    assert len(list((tmp_path / "spool" / "quarantine").iterdir())) == 1
    assert "known with other content" in caplog.text


@pytest.mark.parametrize("where", [0, 100, 0.5, -1])
def test_a_damaged_file_is_set_aside_and_what_is_behind_it_delivered(spool, rng, tmp_path, where, caplog):
    bad, good = make_episode(rng, steps=2), make_episode(rng, steps=2)
    spool.put(bad)
    spool.put(good)
    file = next((tmp_path / "spool").glob(f"*{bad.uuid}*"))
    content = bytearray(file.read_bytes())
    content[int(where * len(content)) if isinstance(where, float) else where] ^= 0x10
    file.write_bytes(content)
    sink = Sink()
    assert spool.deliver(sink, 10) == 1
    assert sink.episodes[0].uuid == good.uuid
    assert "set aside" in caplog.text
    with pytest.raises(KeyError):
        spool.load(bad.uuid)


@pytest.mark.parametrize("answer", [CorruptEpisode("damaged on the way"), RemoteError("internal"), StoreError("odd")])
def test_what_a_server_refuses_is_offered_again_before_anything_overtakes_it(spool, rng, tmp_path, caplog, answer):
    episodes = [make_episode(rng, steps=2) for _ in range(4)]
    bad, good = [episode.uuid for episode in episodes[:2]], [episode.uuid for episode in episodes[2:]]
    for episode in episodes:
        spool.put(episode)
    sink = PickySink()
    sink.refused = dict.fromkeys(bad, answer)
    for _ in range(9):
        with pytest.raises(type(answer), match=str(answer)):
            spool.deliver(sink, 2)
    assert sink.asked == bad[:1] * 9
    for _ in range(9):
        with pytest.raises(type(answer)):
            spool.deliver(sink, 2)
    assert set(sink.asked) == set(bad)
    assert (len(spool), spool.set_aside, caplog.text) == (4, 0, "")
    assert spool.deliver(sink, 2) == 2
    assert [episode.uuid for episode in sink.episodes] == good
    assert (len(spool), spool.set_aside) == (0, 2)
    assert [f"{answer}; set aside as" in record.getMessage() for record in caplog.records] == [True, True]
    assert all(record.levelname == "ERROR" for record in caplog.records)


def test_a_server_that_takes_nothing_makes_all_wait_in_order(spool, rng):
    episodes = [make_episode(rng, steps=2) for _ in range(3)]
    for episode in episodes:
        spool.put(episode)
    sink = Sink()
    sink.error = StoreError("the catalogue is damaged")
    for _ in range(50):
        with pytest.raises(StoreError):
            spool.deliver(sink, 20)
    sink.error = None
    assert spool.deliver(sink, 20) == 3
    assert [episode.uuid for episode in sink.episodes] == [episode.uuid for episode in episodes]
    assert spool.set_aside == 0


def test_a_server_that_recovers_between_two_episodes_gets_both(spool, rng):
    class Recovering(Sink):
        def append(self, episode):
            if episode.uuid == second.uuid:
                self.error = None
            return super().append(episode)

    first, second = make_episode(rng, steps=2), make_episode(rng, steps=2)
    spool.put(first)
    sink = Recovering()
    sink.error = StoreError("the catalogue is damaged")
    for _ in range(12):
        with pytest.raises(StoreError):
            spool.deliver(sink, 20)
    spool.put(second)
    assert spool.deliver(sink, 20) == 2
    assert spool.set_aside == 0


def test_what_was_set_aside_is_delivered_when_it_is_put_back(tmp_path, rng):
    bad, good = make_episode(rng, steps=2), make_episode(rng, steps=2)
    spool = Spool(tmp_path)
    spool.put(bad)
    sink = PickySink()
    sink.refused = {bad.uuid: CorruptEpisode("damaged on the way")}
    for _ in range(10):
        with pytest.raises(CorruptEpisode):
            spool.deliver(sink, 20)
    spool.put(good)
    assert spool.deliver(sink, 20) == 1
    spool.close()
    (file,) = (tmp_path / "quarantine").iterdir()
    file.rename(tmp_path / file.name)
    again = Spool(tmp_path)
    assert (again.pending(), again.set_aside) == ([bad.uuid], 0)
    sink.refused = {}
    assert again.deliver(sink, 20) == 1
    assert_same(sink.episodes[-1], bad)
    again.close()


def test_loading_a_torn_file_says_so(spool, episode, tmp_path):
    spool.put(episode)
    file = next((tmp_path / "spool").glob(f"*{episode.uuid}*"))
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(CorruptEpisode, match=episode.uuid):
        spool.load(episode.uuid)


def test_a_full_spool_refuses_and_keeps_what_it_has(tmp_path, rng):
    spool = Spool(tmp_path, max_bytes=15_000)
    spool.put(make_episode(rng, steps=4))
    with pytest.raises(StoreFull, match="allow more"):
        spool.put(make_episode(rng, steps=20))
    kept = spool.pending()
    assert kept
    assert [spool.load(uuid).uuid for uuid in kept] == kept
    spool.close()


def test_one_process_at_a_time(spool, tmp_path):
    with pytest.raises(ConfigError, match="in use"):
        Spool(tmp_path / "spool")


def test_a_place_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Spool(tmp_path / "file")


WRITER = """
import sys
from pathlib import Path
import numpy as np
from robot_bridge.spool import Spool
from tests.episodes import make_episode
spool, rng = Spool(Path(sys.argv[1])), np.random.default_rng(0)
while True:
    episode = make_episode(rng, steps=3)
    spool.put(episode)
    print(episode.uuid, flush=True)
"""


def test_kill_loses_nothing_that_was_acknowledged(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    acknowledged = [process.stdout.readline().strip() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [line.strip() for line in process.stdout if len(line) == 33]
    process.wait()
    process.stdout.close()
    spool = Spool(tmp_path)
    assert set(acknowledged) <= set(spool.pending())
    for uuid in spool.pending():
        assert spool.load(uuid).uuid == uuid
    assert not list(tmp_path.glob("*.partial"))
    spool.close()
