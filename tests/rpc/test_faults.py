"""A server process that is killed: what its clients see, and that they go on with the next one."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from qtopt.errors import ServerUnavailable
from qtopt.replay import EpisodeStore
from qtopt.rpc import ClientConfig, connect
from tests.episodes import make_episode
from tests.ports import free_port
from tests.rpc.conftest import SIZE


@contextmanager
def server_process(store, port):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.rpc.serve", str(port), str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert int(process.stdout.readline()) == port
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_killed_server_is_unavailable_within_the_deadline_and_the_next_one_is_found(rng, tmp_path):
    first, second = make_episode(rng), make_episode(rng)
    port = free_port()
    with server_process(tmp_path / "store", port) as process:
        connection = connect(ClientConfig(address=f"127.0.0.1:{port}", call_timeout_s=5.0), SIZE)
        assert connection.replay.append(first)
        waiting = []

        def sample():
            start = time.monotonic()
            with pytest.raises(ServerUnavailable):
                connection.replay.sample_labelled(4, 30.0)
            waiting.append(time.monotonic() - start)

        thread = threading.Thread(target=sample)
        thread.start()
        time.sleep(0.3)
        process.kill()
        process.wait()
        thread.join(30.0)
        assert len(waiting) == 1
        assert waiting[0] < 20.0
        for call in (
            lambda: connection.replay.append(second),
            lambda: connection.model.latest(),
            lambda: connection.monitor.report("x", {}),
        ):
            start = time.monotonic()
            with pytest.raises(ServerUnavailable, match=r"nobody answered|no answer"):
                call()
            assert time.monotonic() - start < 15.0
        with server_process(tmp_path / "store", port):
            deadline = time.monotonic() + 20.0
            while True:
                try:
                    assert connection.replay.append(second)
                    break
                except ServerUnavailable:
                    assert time.monotonic() < deadline
        connection.close()


def test_no_kill_loses_an_acknowledged_episode_or_stores_one_twice(rng, tmp_path):
    episodes = [make_episode(rng, 4) for _ in range(400)]
    acknowledged, published = set(), []
    done = threading.Event()

    def deliver(connection, own):
        for episode in own:
            while not done.is_set():
                try:
                    connection.replay.append(episode)
                    acknowledged.add(episode.uuid)
                    break
                except ServerUnavailable:
                    time.sleep(0.02)

    port, threads, connections = free_port(), [], []
    try:
        for round_ in range(4):
            with server_process(tmp_path / "store", port) as process:
                if not threads:
                    for first in range(3):
                        connections.append(connect(ClientConfig(address=f"127.0.0.1:{port}", call_timeout_s=3.0), SIZE))
                        mine = (connections[-1], episodes[first::3])
                        threads.append(threading.Thread(target=deliver, args=mine))
                        threads[-1].start()
                with connect(f"127.0.0.1:{port}", SIZE) as observer:
                    before = set(acknowledged)
                    assert observer.replay.stats()["episodes"] >= len(before)
                    published.append(observer.model.publish(round_, b"weights %d" % round_))
                    goal = min(len(before) + 60, len(episodes))
                    deadline = time.monotonic() + 60.0
                    while len(acknowledged) < goal and time.monotonic() < deadline:
                        time.sleep(0.005)
                assert len(acknowledged) >= goal
                process.kill()
    finally:
        done.set()
        for thread in threads:
            thread.join(30.0)
        for connection in connections:
            connection.close()
    assert published == [1, 2, 3, 4]
    with EpisodeStore(tmp_path / "store") as store:
        again = {episode.uuid: store.append(episode) for episode in episodes if episode.uuid in acknowledged}
        assert not any(again.values())
        assert store.stats()["episodes"] - len(acknowledged) <= 3  # durable, but the answer died with the server
        assert store.verify().sound
