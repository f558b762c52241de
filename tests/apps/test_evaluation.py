"""Evaluation as people and scripts use it: one JSON object, bins emptied, pairs compared, whole runs summed up."""

import json

import pytest
import yaml

from qtopt import cli
from qtopt.agent.cem import CemConfig
from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.agent.network import NetworkConfig
from qtopt.agent.policy import CemPolicy
from qtopt.agent.snapshot import unpack
from qtopt.apps import collect, finals, offline, plan, run, train
from qtopt.apps.progress import State
from qtopt.apps.rundir import RunDirectory
from qtopt.errors import CheckpointError, ConfigError
from qtopt.loops.checkpoints import Checkpoints
from qtopt.loops.report import read_report
from sim import SimConfig

QUICK = CemConfig(samples=8, elites=2, iterations=1)


def test_eval_says_one_json_object_and_nothing_else(qtopt, tmp_path):
    words = ["eval", "--policy", "scripted", "--objects", "other", "--episodes", 3, "--seed", 5, "--filmstrips", 0]
    code, out, _ = qtopt(*words, "--output", tmp_path, "--json", "-")
    assert code == 0
    assert out.count("\n") == 1
    told = json.loads(out)
    assert {"success", "interval", "checkpoint"} <= told.keys()
    assert (told["episodes"], told["objects"], told["seed"], told["policy"]) == (3, "other", 5, "scripted")
    assert told["interval"][0] <= told["success"] <= told["interval"][1]


def test_eval_empties_bins(qtopt, tmp_path):
    words = ["--policy", "scripted", "--protocol", "emptying", "--bins", 1, "--attempts", 3, "--output", tmp_path]
    code, out, _ = qtopt("eval", *words, "--json", tmp_path / "told.json")
    assert code == 0
    assert "objects removed" in out
    assert "share removed over bins" in out
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["protocol"] == "emptying"
    assert 8 <= told["trials"] <= 10
    assert [row["attempt"] for row in read_report(tmp_path / told["file"])["rows"]] == [1, 2, 3]


def test_the_policy_that_ships_is_evaluated_outside_the_package(qtopt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--checkpoint", "pretrained", "--episodes", 1, "--cem.samples", 8, "--cem.elites", 2, "--json", "-"]
    code, out, _ = qtopt("eval", *words)
    assert code == 0
    told = json.loads(out)
    assert told["checkpoint"] == "pretrained"
    assert told["file"].startswith("outputs/eval/")
    assert (tmp_path / told["file"]).is_file()


def test_compare_reads_two_reports(qtopt, tmp_path):
    for name, outcomes in (("a", ["success", "success"]), ("b", ["success", "dropped"])):
        rows = [{"index": i, "scene_seed": i, "outcome": each} for i, each in enumerate(outcomes)]
        report = {"seed": 0, "objects": "unseen", "protocol": "fresh", "rows": rows}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    code, out, _ = qtopt("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert code == 0
    assert "both 1, only A 1, only B 0, neither 0" in out
    assert "p = 1" in out
    code, out, _ = qtopt("compare", tmp_path / "a.json", tmp_path / "b.json", "--json", "-")
    assert json.loads(out)["difference"] == 0.5
    (tmp_path / "b.json").write_text("[]")
    code, _, err = qtopt("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert code == 2
    assert "expected a report with a row for each episode" in err


@pytest.fixture
def trained(tmp_path):
    """The directory of a run with two checkpoints, resumed once."""
    directory = RunDirectory(tmp_path / "run")
    directory.prepare()
    directory.write_config(plan.Config(seed=3, cem=QUICK))
    checkpoints = Checkpoints(directory.checkpoints)
    for step in (10, 20):
        learner = Learner(LearnerConfig(), seed=step)
        checkpoints.save(step, learner.save)
    for episodes in (40.0, 70.0):
        directory.append_metrics({"minutes": 1.0, "server/episodes": episodes, "collector/episodes": episodes})
    State(2, 1.5).save(directory.state)
    return directory


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_finals_evaluates_the_last_checkpoints_once(qtopt, trained, tmp_path):
    output = tmp_path / "result.json"
    words = ["finals", trained.root, "--checkpoints", 2, "--episodes", 2, "--output", output]
    code, out, err = qtopt(*words)
    assert code == 0, err
    result = json.loads(output.read_text())
    assert (result["objects"], result["grasps"], result["seeds"]) == ("unseen", 70, [3])
    assert (result["episodes"], result["wall_s"], result["profile"]) == (4, 90.0, "compact")
    assert {"final_success", "interval", "command", "commit"} <= result.keys()
    assert {"cpu", "cores", "memory_gib", "gpu"} == result["hardware"].keys()
    assert [row["step"] for row in result["checkpoints"]] == [10, 20]
    assert list(result)[-1] == "best_of_n"
    assert result["best_of_n"]["n"] == 2
    assert out.index("final success") < out.index("best-of-2")
    files = sorted((trained.evaluations / "finals").glob("*.json"))
    before = [path.stat().st_mtime_ns for path in files]
    assert qtopt(*words)[0] == 0
    assert [path.stat().st_mtime_ns for path in files] == before


def test_finals_refuses_what_is_not_there(qtopt, trained):
    words = ["finals", trained.root, "--output", "result.json", "--checkpoints", 5]
    code, _, err = qtopt(*words)
    assert code == CheckpointError.exit_code
    assert "found 2 checkpoints, expected 5" in err
    twice = [finals._open(trained.root, 1)] * 2
    with pytest.raises(ConfigError, match=r"found seeds \[3, 3\]"):
        finals._require_alike(twice)


def test_the_run_names_its_best_last_and_as_best_of_n(trained):
    report = {"successes": 3, "episodes": 4}
    trained.final.write_text('{"ratio": 2.0, "intervals_disjoint": false}')
    best = trained.checkpoints / "best"
    best.mkdir()
    (best / "evaluation.json").write_text(json.dumps(report))
    for step in (1, 2):
        (trained.evaluations / f"learned-{step}.json").write_text("{}")
    lines = run._summary({"scripted": report, "learned": report}, trained).splitlines()
    assert lines[-1].startswith("best-of-2 evaluations during the run")
    assert "75.0 %" in lines[-1]


def test_a_run_from_a_policy_trains_on_with_its_networks(qtopt, trained, tmp_path):
    words = ["--from", str(trained.root)]
    config = cli.parse(plan.Config, "run", words)
    roles = {role.name: role.config for role in plan.roles(config, RunDirectory(tmp_path / "next"), 5000, 0)}
    assert roles["trainer"].start == roles["collector-0"].start == trained.root
    here = train.Config(start=trained.root, checkpoints=tmp_path / "next" / "checkpoints")
    networks = unpack(train.build_learner(here).snapshot())
    earlier = unpack((trained.checkpoints / "last" / "policy.safetensors").read_bytes())
    assert networks.step == 0
    for ours, theirs in ((networks.theta1, earlier.theta1), (networks.theta2, earlier.theta2)):
        pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        assert all(bool((one == other).all()) for one, other in pairs)
    acting = collect.first_policy(roles["collector-0"])
    assert isinstance(acting._learned, CemPolicy)
    assert acting._config.scripted_share(0) == config.exploration.scripted_share_end
    with pytest.raises(ConfigError, match="--from is"):
        plan.require_same(plan.Config(), config)


def test_another_network_is_refused_with_what_differs(trained, tmp_path):
    wider = LearnerConfig(network=NetworkConfig(width=32))
    with pytest.raises(CheckpointError, match=r"learner\.network\.width is 32, expected 48"):
        train.build_learner(train.Config(start=trained.root, checkpoints=tmp_path / "new", learner=wider))


def test_from_is_written_to_files_and_read_again(tmp_path):
    config = cli.parse(offline.Config, "offline", ["--store", "store", "--from", "pretrained"])
    assert str(config.start) == "pretrained"
    directory = RunDirectory(tmp_path)
    directory.prepare()
    directory.write_config(config)
    assert yaml.safe_load(directory.config.read_text())["start"] == "pretrained"


@pytest.mark.parametrize("objects", ["unseen", "other"])
def test_nothing_is_collected_with_what_is_evaluated_on(objects):
    for kind in (collect.Config, plan.Config):
        with pytest.raises(ConfigError, match="must never be collected with"):
            kind(sim=SimConfig(objects=objects))


def test_what_was_exported_is_evaluated_on_the_same_scenes_as_the_checkpoint(qtopt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = qtopt("export", "--checkpoint", "pretrained", "--output", tmp_path / "robot")
    assert code == 0
    assert "compact policy of step" in out
    words = ["--episodes", 2, "--filmstrips", 0, "--cem.samples", 16, "--json", "-"]
    told = []
    for checkpoint in ("pretrained", tmp_path / "robot"):
        code, out, _ = qtopt("eval", "--checkpoint", checkpoint, *words)
        assert code == 0
        told.append(json.loads(out))
    reports = [read_report(tmp_path / each["file"]) for each in told]
    assert reports[1]["runtime"] == "onnx"
    assert reports[0]["policy_sha256"] == reports[1]["policy_sha256"]
    assert reports[0]["step"] == reports[1]["step"]
    code, out, _ = qtopt("compare", told[0]["file"], told[1]["file"])
    assert code == 0
    code, _, err = qtopt("eval", "--checkpoint", tmp_path / "robot", "--sim.camera.size-px", 80, *words)
    assert code == 2
    assert "sim.camera.size_px is 80, expected 72" in err
