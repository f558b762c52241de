"""A client that nobody here wrote: ``buf curl``, Go, which knows of the services only what reflection tells it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from qtopt.replay import MemoryStore, StoreFormat
from qtopt.rpc import Audit, BackgroundServer, ServerConfig, Services
from tests.episodes import make_episode
from tests.rpc.secured import listening, written

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
    return lambda path, *words: call(tmp_path, f"http://{address}{path}", *words)


def call(home, url, *words):
    if BUF is None:
        pytest.skip("buf is not installed; the extra dev has it")
    command = [BUF, "curl", "--protocol", "grpc", *words, url]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=home, env={"HOME": str(home)}, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def guarded(keys, tmp_path):
    """A server that asks for certificates and tokens, describes itself, and keeps an audit log; and its address."""
    audit = Audit(tmp_path / "audit.jsonl")
    with (
        MemoryStore(StoreFormat.for_images(16)) as store,
        BackgroundServer(
            listening(tmp_path, reflection=True), Services((16, 16), lambda: store, audit=audit)
        ) as server,
    ):
        yield f"127.0.0.1:{server.port}"
    audit.close()


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


def test_with_certificate_and_token_it_finds_the_services_and_is_refused_nothing(guarded, tmp_path):
    own = tmp_path / "keys" / "clients" / "a-viewer"
    token = (own / "token").read_text().strip()
    files = [*("--cacert", own / "ca.crt"), *("--cert", own / "client.crt"), *("--key", own / "client.key")]
    words = [*map(str, files), "-H", f"authorization: Bearer {token}", "--reflect-header", "*"]
    code, out, err = call(tmp_path, f"https://{guarded}", *words, "--list-services")
    assert code == 0, err
    assert "qtopt.v1.ReplayService" in out.split()
    code, out, err = call(tmp_path, f"https://{guarded}/qtopt.v1.ReplayService/GetStats", *words)
    assert code == 0, err
    assert json.loads(out)["figures"]["transitions"] == 0
    assert written(tmp_path) == []


def test_a_method_that_there_is_not_is_unknown_to_who_says_who_it_is(guarded, tmp_path):
    own = tmp_path / "keys" / "clients" / "a-viewer"
    files = [(own / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt")]
    metadata = [("authorization", f"Bearer {(own / 'token').read_text().strip()}")]
    with grpc.secure_channel(guarded, grpc.ssl_channel_credentials(*files)) as channel:
        for name in ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "qtopt.v1.ReplayService/NoSuch"):
            with pytest.raises(grpc.RpcError) as caught:
                list(channel.stream_stream(f"/{name}")(iter([b""]), metadata=metadata, timeout=10.0))
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED, name
            with pytest.raises(grpc.RpcError) as caught:
                list(channel.stream_stream(f"/{name}")(iter([b""]), timeout=10.0))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, name
    assert {line["why"].partition(":")[0] for line in written(tmp_path)} == {"NotAuthenticated"}
