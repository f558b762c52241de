"""Logs are JSON lines that name robot, episode and policy version wherever an episode is handled."""

import io
import json
import logging

import pytest
import structlog

from qtopt.apps.process import set_up_logs
from qtopt.errors import CorruptEpisode, SchemaMismatch
from qtopt.loops.outbox import Outbox
from qtopt.rpc import BackgroundServer, ServerConfig, Services, codec, connect
from qtopt.rpc.gen import replay_pb2, replay_pb2_grpc
from robot_bridge.spool import Spool
from tests.episodes import make_episode
from tests.rpc.stores import DictStore


@pytest.fixture
def lines(monkeypatch):
    """Returns a function that returns what was logged since the test began."""
    kept = logging.getLogger().handlers[:], logging.getLogger().level
    text = io.StringIO()
    set_up_logs("test", text)
    yield lambda: [json.loads(line) for line in text.getvalue().splitlines()]
    logging.getLogger().handlers[:], logging.getLogger().level = kept
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def of(found, event):
    return [line for line in found if event in line["event"]]


def test_the_server_names_the_episode_that_it_refuses(lines, episode):
    message = codec.encode_episode(episode)
    message.rewards = message.rewards[:-1] + b"\x00"
    with (
        BackgroundServer(ServerConfig(port=0), Services((16, 16), DictStore)) as server,
        connect(server.address) as connection,
    ):
        channel = connection.replay._channel
        stub = replay_pb2_grpc.ReplayServiceStub(channel.grpc)
        with pytest.raises(CorruptEpisode):
            channel.call(stub.AppendEpisode, replay_pb2.AppendEpisodeRequest(episode=message), "append")
    (line,) = of(lines(), "episode refused")
    assert (line["robot"], line["episode"], line["policy_version"]) == ("test", episode.uuid, 0)
    assert (line["kind"], line["level"], line["role"]) == ("CorruptEpisode", "warning", "test")


def test_what_a_server_refuses_for_good_is_kept_and_named(lines, tmp_path, rng):
    episode = make_episode(rng, 2, size_px=32, policy_version=9)
    with (
        BackgroundServer(ServerConfig(port=0), Services((16, 16), DictStore)) as server,
        connect(server.address) as connection,
    ):
        spool = Spool(tmp_path / "spool")
        outbox = Outbox(connection.replay, spool)
        outbox.keep(episode)
        with pytest.raises(SchemaMismatch, match="pixels, expected"):
            outbox.flush()
        assert spool.pending() == [episode.uuid]
        spool.close()
    assert of(lines(), "episode refused")[0]["policy_version"] == 9


def test_libraries_and_parts_without_structlog_write_json_too(lines):
    with structlog.contextvars.bound_contextvars(robot="arm-1", episode="ab", policy_version=3):
        logging.getLogger("robot_bridge.spool").error("spool: %s", "set aside")
    (line,) = lines()
    assert line["event"] == "spool: set aside"
    assert (line["robot"], line["level"]) == ("arm-1", "error")
    assert "timestamp" in line
