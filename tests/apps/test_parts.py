"""The parts of the programs: totals over restarts, the live table, the run's directory, the policy service."""

import errno
import io
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog
from rich.console import Console
from safetensors.numpy import save

from qtopt.agent.cem import CemConfig
from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.agent.policy import CemPolicy
from qtopt.agent.snapshot import FORMAT, load_policy_network
from qtopt.apps import evaluate, live, plan, run, serve
from qtopt.apps.curve import draw
from qtopt.apps.process import logger, set_up_logs
from qtopt.apps.progress import State, Totals
from qtopt.apps.rundir import RunDirectory
from qtopt.apps.serve import NewestNetwork, NewestPolicy
from qtopt.errors import CheckpointError, ConfigError, RemoteError, ServerUnavailable
from qtopt.loops.metrics import wilson
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.rpc import BackgroundServer, ModelRegistry, ServerConfig, Services, connect
from qtopt.types import Observation

CEM = CemConfig(samples=8, elites=2, iterations=2)


def test_counters_go_on_where_a_restarted_process_begins_anew():
    totals = Totals([{"collector/sim-0/episodes": 100.0, "trainer/loss": 3.0}])
    seen = []
    for episodes in (5.0, 9.0, 2.0, 4.0):
        figures = {"collector/sim-0": {"episodes": episodes}, "trainer": {"step": 7.0}}
        totals.apply_to(figures)
        seen.append(figures["collector/sim-0"]["episodes"])
        assert figures["trainer"]["step"] == 7.0
    assert seen == [105.0, 109.0, 111.0, 113.0]


def test_counters_outlast_moments_in_which_their_role_is_not_heard():
    earlier = [
        {"collector/sim-0/episodes": 90.0, "collector/sim-1/episodes": 40.0, "collector/episodes": 130.0},
        {"collector/sim-0/episodes": 100.0, "collector/episodes": 100.0, "trainer/step": 3.0},
        {"minutes": 1.0, "evaluation": {"policy": "learned"}},
        {"trainer/step": 7.0, "collector/episodes": 0.0},  # a session killed before its collectors had reported
    ]
    totals = Totals(earlier)
    seen = []
    for heard in ({}, {"collector/sim-0": {"episodes": 5.0}}, {}, {"collector/sim-0": {"episodes": 2.0}}):
        figures = {role: dict(values) for role, values in heard.items()} | {"trainer": {"step": 8.0}}
        totals.apply_to(figures)
        seen.append(live.gather(figures, {})["collector/episodes"])
    assert seen == [140.0, 145.0, 145.0, 147.0]


ROW = live.gather(
    {
        "collector/sim-0": {"episodes": 5.0, "episodes_per_s": 1.5, "success_recent": 0.25, "policy_version": 3.0},
        "collector/sim-1": {"episodes": 7.0, "episodes_per_s": 2.0, "success_recent": 0.75, "policy_version": 4.0},
        "updater/0": {"labels": 640.0, "labels_per_s": 64.0},
        "trainer": {"step": 12.0, "steps_per_s": 8.0, "loss": 0.25, "label_age_s": 2.0},
    },
    {"episodes": 12.0, "transitions": 60.0},
)


def test_rows_add_up_over_collectors():
    assert ROW["collector/episodes"] == 12.0
    assert ROW["collector/episodes_per_s"] == 3.5
    assert ROW["collector/success_recent"] == 0.5
    assert ROW["server/transitions"] == 60.0
    assert live.collectors(ROW) == {"sim-0": 3.0, "sim-1": 4.0}


def test_the_table_shows_what_was_asked_for():
    success = {"scripted": wilson(2, 10), "learned": wilson(5, 10)}
    out = io.StringIO()
    Console(file=out, width=160).print(live._table("run", ROW, 1.0, 30.0, success, "trainer waits for labels"))
    text = out.getvalue()
    for words in (
        "12  (3.50/s)",
        "20.0 % [5.7, 51.0] of 10",
        "50.0 % [23.7, 76.3] of 10",
        "12  (8.0/s)",
        "640  (64/s)",
        "12 episodes, 60 transitions",
        "sim-0: 3  sim-1: 4",
        "0.2500",
        "trainer waits for labels",
    ):
        assert words in text


def test_lines_instead_of_a_table_without_a_terminal(capsys):
    with live.Display("run") as display:
        display.update(ROW, 1.0, 30.0, {}, "")
        display.update(ROW, 1.0, 30.0, {}, "")
    assert capsys.readouterr().out.count("gradient steps: 12") == 1


def test_what_is_no_number_is_left_out():
    assert live.finite({"a": math.nan, "b": 1 / 3, "c": 2, "d": "x"}) == {"b": 0.333333, "c": 2, "d": "x"}


def test_a_run_is_found_again(tmp_path):
    directory = RunDirectory.create(tmp_path, "kuka")
    assert RunDirectory.create(tmp_path, "kuka").root != directory.root
    directory.write_config(plan.Config())
    assert "# commit: " in directory.config.read_text()
    directory.append_metrics({"minutes": 1.0})
    with directory.metrics.open("a") as file:
        file.write('{"minutes": 2')
    assert RunDirectory.existing(directory.root).read_metrics() == [{"minutes": 1.0}]
    State(2, 1.5).save(directory.state)
    assert State.load(directory.state) == State(2, 1.5)
    with pytest.raises(CheckpointError, match="no config"):
        RunDirectory.existing(directory.logs)


def test_the_curve_is_drawn(tmp_path):
    rows = [{"minutes": m, "trainer/loss": 1 / m, "collector/success_recent": 0.1 * m} for m in (1.0, 2.0)]
    evaluation = {"policy": "learned", "minutes": 2.0, "success": 0.5, "wilson_95": [0.3, 0.7]}
    draw(rows, [evaluation, {"policy": "scripted", "minutes": 0.0, "success": None}], tmp_path / "a.png", "run")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_every_role_of_a_run_has_its_own_seed_and_the_same_server(tmp_path):
    config = plan.Config(collectors=2, updaters=2)
    first, second = (plan.roles(config, RunDirectory(tmp_path), 5000, session) for session in (0, 1))
    assert [role.name for role in first] == [
        "server", "trainer", "updater-0", "updater-1", "collector-0", "collector-1", "evaluator",
    ]  # fmt: skip
    assert {role.config.server.address for role in first if role.name != "server"} == {"127.0.0.1:5000"}
    chance = [(role.config.seed, getattr(role.config, "session", 0)) for role in first + second if "or-" in role.name]
    assert len(set(chance)) == len(chance)
    assert [role.config.resume for role in (first[1], second[1])] == [True, True]


def test_a_run_goes_on_only_as_it_began():
    changed = plan.Config(learner=LearnerConfig(polyak=0.5))
    with pytest.raises(ConfigError, match=r"learner\.polyak is 0\.5, expected 0\.999"):
        plan.require_same(changed, plan.Config())
    with pytest.raises(ConfigError, match="--from is 'pretrained', expected None"):
        plan.require_same(plan.Config(start=Path("pretrained")), plan.Config())
    plan.require_same(plan.Config(minutes=60.0), plan.Config())


def test_a_finished_run_can_have_its_final_evaluation_later(tmp_path):
    directory = RunDirectory.create(tmp_path, "kuka")
    first = plan.Config(minutes=30.0)
    directory.write_config(first)
    State(1, 30.1).save(directory.state)
    config = replace(first, resume=directory.root)
    found, state = run._prepare(config)
    assert (found.root, state) == (directory.root, State(1, 30.1))
    directory.final.write_text("{}")
    with pytest.raises(ConfigError, match=r"has had 30\.1 minutes"):
        run._prepare(config)
    assert run._prepare(replace(config, minutes=60.0))[1].minutes == 30.1


def test_the_best_networks_stay_the_best_over_a_restart(tmp_path):
    best = tmp_path / "best"
    assert evaluate._success_of_best(best) == 0.0
    report = tmp_path / "learned.json"
    report.write_text('{"success": 0.5}')
    evaluate._keep(b"weights", {"file": str(report)}, best)
    assert evaluate._success_of_best(best) == 0.5
    assert (best / "policy.safetensors").read_bytes() == b"weights"


def test_the_policy_service_acts_as_the_newest_local_policy(rng):
    registry = ModelRegistry()
    newest = NewestNetwork(registry)
    with MemoryStore(StoreFormat.for_images(72)) as store:
        services = Services(
            (72, 72),
            lambda: store,
            registry=registry,
            make_policy=lambda: NewestPolicy(newest, CEM),
            policy_version=lambda: newest.version,
        )
        with BackgroundServer(ServerConfig(port=0), services) as server, connect(server.address) as connection:
            remote = connection.policy()
            with pytest.raises(ServerUnavailable, match="no policy was published"):
                remote.begin_episode(np.random.default_rng(1))
            for version in (1, 2):
                payload = Learner(LearnerConfig(), seed=version).snapshot()
                assert connection.model.publish(version, payload) == version
                local = CemPolicy(load_policy_network(payload), CEM)
                image = rng.integers(0, 256, (72, 72, 3), dtype=np.uint8)
                for policy in (remote, local):
                    policy.begin_episode(np.random.default_rng(1))
                ours, theirs = (policy.select(Observation(image, False, 0.1)) for policy in (local, remote))
                np.testing.assert_array_equal(ours.action, theirs.action)
                assert ours.value == pytest.approx(theirs.value)
                assert newest.version == version


def test_the_policy_service_acts_on_with_the_networks_before_those_that_cannot_be_used():
    bad = save({"weight": np.zeros(1, np.float32)}, {"format": FORMAT})
    registry = ModelRegistry()
    newest = NewestNetwork(registry)
    with structlog.testing.capture_logs() as said:
        registry.publish(1, bad)
        for _ in range(2):
            with pytest.raises(ServerUnavailable, match="networks of version 1 cannot be used"):
                newest.get()
        assert "cannot be used" in newest.trouble()
        registry.publish(2, Learner(LearnerConfig(), seed=0).snapshot())
        network = newest.get()
        assert (newest.version, newest.trouble(), newest.figures()) == (2, None, {"networks_left_out": 0.0})
        registry.publish(3, bad)
        assert newest.get() is newest.get() is network
        assert (newest.version, newest.trouble(), newest.figures()) == (2, None, {"networks_left_out": 1.0})
        registry.publish(4, Learner(LearnerConfig(), seed=1).snapshot())
        assert newest.get() is not network
        assert newest.figures() == {"networks_left_out": 0.0}
    assert [(line["event"], line["version"]) for line in said] == [
        ("newer networks are left out", 1),
        ("newer networks are left out", 3),
    ]


def test_networks_that_could_not_be_loaded_for_want_of_memory_are_tried_again(monkeypatch):
    def out_of_memory(payload):
        raise MemoryError

    registry = ModelRegistry()
    newest = NewestNetwork(registry)
    registry.publish(1, Learner(LearnerConfig(), seed=0).snapshot())
    with monkeypatch.context() as patch:
        patch.setattr(serve, "load_policy_network", out_of_memory)
        for _ in range(2):
            with pytest.raises(MemoryError):
                newest.get()
    newest.get()
    assert newest.version == 1


def test_an_episode_must_begin_before_it_goes_on():
    policy = NewestPolicy(NewestNetwork(ModelRegistry()), CEM)
    with pytest.raises(RemoteError, match="before an episode had begun"):
        policy.select(Observation(np.zeros((72, 72, 3), np.uint8), False, 0.1))


def test_a_log_that_cannot_be_written_ends_nobody():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    try:
        set_up_logs("server", Full())
        logger().warning("nobody will read this")
        logging.getLogger("qtopt").warning("nor this")
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
        logging.basicConfig(force=True)
