"""Roles that are started again over what is left: a trainer without its checkpoints, two servers over one directory."""

import json

import numpy as np
import pytest

from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.apps.benches.servers import serving
from qtopt.apps.serve import sole_publisher
from qtopt.loops.checkpoints import Checkpoints
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.rpc import BackgroundServer, ModelRegistry, ServerConfig, Services
from qtopt.types import Targets
from tests.episodes import make_episode
from tests.ports import free_port

PX = 72


@pytest.fixture
def registry():
    return ModelRegistry()


@pytest.fixture
def train(qtopt, registry, rng, tmp_path):
    """Returns a function that runs the trainer for some steps; it returns the exit code and its log's lines."""
    with MemoryStore(StoreFormat.for_images(PX), rng=np.random.default_rng(0)) as store:
        for _ in range(10):
            store.append(make_episode(rng, steps=3, size_px=PX))
        transitions = store.sample_transitions(30, 1.0)
        store.put_targets(Targets(transitions.position, np.full(30, 0.5, np.float32), 1))
        with BackgroundServer(ServerConfig(port=0), Services((PX, PX), lambda: store, registry)) as server:

            def run(steps, *words):
                given = ["--server", server.address, "--checkpoints", tmp_path / "checkpoints", "--learner.batch", 4]
                code, _, err = qtopt("train", *given, "--loop.steps", steps, "--resume", *words)
                return code, err.splitlines()

            yield run


def events(lines):
    return [json.loads(line)["event"] for line in lines if line.startswith("{")]


def test_a_trainer_that_lost_its_checkpoints_does_not_replace_what_the_fleet_acts_with(train, registry, tmp_path):
    registry.publish(2633, b"networks that took a month")
    code, lines = train(1)
    assert code == 2
    assert "found no checkpoint, and on the server networks of step 2633" in lines[-1]
    assert "--loop.may-fall-back" in lines[-1]
    assert f"no checkpoint in {tmp_path / 'checkpoints'}; beginning at step 0" in events(lines)
    assert registry.latest().step == 2633
    code, _ = train(1)  # nothing of the first attempt makes the second one go through
    assert code == 2
    code, lines = train(1, "--loop.may-fall-back")
    assert code == 0, lines
    assert registry.latest().step == 1


def test_a_trainer_with_a_checkpoint_goes_on_behind_what_it_published_since(train, registry):
    code, lines = train(1)
    assert code == 0, lines
    registry.publish(50, b"of the same trainer, killed before it saved")
    code, lines = train(2)
    assert code == 0, lines
    assert not [event for event in events(lines) if "no checkpoint" in event]
    assert registry.latest().step == 2


def test_a_trainer_that_was_killed_before_its_first_step_goes_on(train, registry, tmp_path):
    learner = Learner(LearnerConfig(batch=4), seed=0)
    Checkpoints(tmp_path / "checkpoints").save(0, learner.save)
    registry.publish(7, b"of the same trainer")
    code, lines = train(1)
    assert code == 0, lines


def test_one_server_alone_publishes_in_a_directory(qtopt, tmp_path):
    with serving(tmp_path, PX, free_port()):
        words = ["--store", tmp_path / "other", "--models", tmp_path / "models", "--listen.port", 0]
        code, _, err = qtopt("serve", *words)
    assert code == 4
    assert "models: the published networks are being written by process" in err
    assert "give another directory (--models)" in err
    assert not (tmp_path / "other").exists()
    with sole_publisher(tmp_path / "models"), sole_publisher(tmp_path / "others"):
        pass  # the system let go of the first one's


def test_a_disk_without_room_for_the_lock_keeps_no_server_from_what_is_there(tmp_path):
    (tmp_path / "models.lock").mkdir()  # as good as a file that cannot be made
    with sole_publisher(tmp_path):
        pass
