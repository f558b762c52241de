"""A client that nobody here wrote: ``buf curl``, Go, which knows of the services only what reflection tells it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qtopt.replay import MemoryStore, StoreFormat
from qtopt.rpc import BackgroundServer, ServerConfig, Services
from tests.episodes import make_episode

BUF = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")


@pytest.fixture(scope="module")
def address():
    with (
        MemoryStore(StoreFormat.for_images(16)) as store,
        BackgroundServer(ServerConfig(port=0), Services((16, 16), lambda: store)) as server,
    ):
        import numpy as np

        store.append(make_episode(np.random.default_rng(0), 4))
        yield server.address


@pytest.fixture
def curl(address, tmp_path):
    """Returns a function that calls ``buf curl`` and returns exit code and output."""
    if BUF is None:
        pytest.skip("buf is not installed; the extra dev has it")

    def run(path, *words):
        command = [BUF, "curl", "--protocol", "grpc", *words, f"http://{address}{path}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env={"HOME": str(tmp_path)}, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_it_lists_the_services_and_their_methods(curl):
    code, out, err = curl("", "--list-services")
    assert code == 0, err
    assert {"qtopt.v1.ReplayService", "qtopt.v1.ModelService", "grpc.health.v1.Health"} <= set(out.split())
    code, out, err = curl("", "--list-methods")
    assert "qtopt.v1.ReplayService/AppendEpisode" in out.split(), err


def test_it_calls_them(curl):
    code, out, err = curl("/qtopt.v1.ReplayService/GetStats")
    assert code == 0, err
    assert json.loads(out)["figures"]["transitions"] == 4
    code, out, err = curl("/grpc.health.v1.Health/Check", "--data", "{}")
    assert json.loads(out) == {"status": "SERVING"}, err
    code, out, err = curl("/qtopt.v1.ReplayService/SampleTransitions", "--data", '{"count": 2, "timeoutS": 1}')
    assert json.loads(out)["transitions"]["next"]["image"]["count"] == 2, err


def test_it_is_told_what_is_wrong(curl):
    code, _, err = curl("/qtopt.v1.ReplayService/SampleTransitions", "--data", '{"count": 0}')
    assert code != 0
    told = json.loads(err)
    assert told["code"] == "failed_precondition"
    assert "found count 0, expected 1 to" in told["message"]
