"""A server process that is killed: what its clients see, and that they go on with the next one."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from qtopt.errors import ServerUnavailable
from qtopt.rpc import ClientConfig, connect
from tests.episodes import make_episode
from tests.rpc.conftest import SIZE

pytestmark = pytest.mark.serial


@contextmanager
def server_process(port=0):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.rpc.serve", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_killed_server_is_unavailable_within_the_deadline_and_the_next_one_is_found(rng):
    first, second = make_episode(rng), make_episode(rng)
    with server_process() as (process, port):
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
        thread.join(10.0)
        assert len(waiting) == 1
        assert waiting[0] < 10.0
        for call in (
            lambda: connection.replay.append(second),
            lambda: connection.model.latest(),
            lambda: connection.monitor.report("x", {}),
        ):
            start = time.monotonic()
            with pytest.raises(ServerUnavailable, match=r"nobody answered|no answer"):
                call()
            assert time.monotonic() - start < 6.0
        with server_process(port):
            deadline = time.monotonic() + 20.0
            while True:
                try:
                    assert connection.replay.append(second)
                    break
                except ServerUnavailable:
                    assert time.monotonic() < deadline
        connection.close()
