"""Ablations: variants as settings, paired differences by hand, and a small one from grasps to table."""

import json
import time

import numpy as np
import pytest

from qtopt.agent.exploration import ScriptedPolicy
from qtopt.apps import ablate, offline
from qtopt.apps.ablation_report import difference
from qtopt.apps.variants import VARIANTS, Variant, choose
from qtopt.errors import ConfigError
from qtopt.loops.compare import Paired
from qtopt.loops.episode import run_episode
from qtopt.loops.retry import never
from qtopt.replay import EpisodeStore, StoreFormat
from sim import SimConfig, make_environment


def test_every_variant_is_a_configuration_of_its_own(tmp_path):
    base = offline.Config(store=tmp_path)
    applied = [variant.apply(base) for variant in VARIANTS]
    assert applied[0] == base
    assert all(config != other for index, config in enumerate(applied) for other in applied[:index])
    by_name = dict(zip((variant.name for variant in VARIANTS), applied, strict=True))
    assert by_name["penalty-0"].target.step_penalty == 0.0
    assert by_name["no-state"].learner.network.state == "none"
    assert by_name["squared-error"].learner.loss == "squared_error"


def test_a_setting_that_does_not_exist_is_named(tmp_path):
    base = offline.Config(store=tmp_path)
    for name in ("target.discont", "targets.discount", "seed.first"):
        with pytest.raises(ConfigError, match=f"variant mine: found the setting '{name}'"):
            Variant("mine", "", {name: 0.5}).apply(base)
    with pytest.raises(ConfigError, match="target discount is 2"):
        Variant("mine", "", {"target.discount": 2.0}).apply(base)


def test_variants_by_name_and_from_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("variants:\n- {name: wide, reason: more channels, overrides: {learner.network.width: 96}}\n")
    assert [variant.name for variant in choose("wide,penalty-0", file)] == ["baseline", "wide", "penalty-0"]
    assert [variant.name for variant in choose("all", file)] == [*(variant.name for variant in VARIANTS), "wide"]
    with pytest.raises(ConfigError, match="found 'wide', expected all, or some of baseline"):
        choose("wide", None)
    file.write_text("variants:\n- {name: penalty-0, reason: again}\n")
    with pytest.raises(ConfigError, match="named like another"):
        choose("all", file)


def test_the_seeds_pairs_are_added_up():
    def report(seed, outcomes):
        rows = [{"index": index, "scene_seed": index, "outcome": each} for index, each in enumerate(outcomes)]
        return {"seed": seed, "objects": "unseen", "rows": rows}

    good, bad, void = "success", "dropped", "aborted"
    mine = [report(0, [good, good, good, void]), report(1, [bad, bad, good, good])]
    baseline = [report(0, [good, bad, bad, good]), report(1, [good, bad, good, void])]
    # both 1 + 1, mine alone 2 + 0, the baseline alone 0 + 1, neither 0 + 1, void 1 + 1
    assert difference(mine, baseline) == Paired(2, 2, 1, 1, 2)


def test_evaluation_follows_the_variants_camera_and_search(tmp_path):
    overrides = {"cem.iterations": 3, "learner.network.image.stored_px": 80, "learner.network.camera.size_px": 80}
    config = ablate.Config(store=tmp_path, output=tmp_path, seeds=(3, 4))
    planned = ablate.jobs(config, [VARIANTS[0], Variant("other", "", overrides)])
    assert [job.name for job in planned] == ["baseline-seed3", "other-seed3", "baseline-seed4", "other-seed4"]
    assert [job.evaluation.seed for job in planned] == [2000, 2000, 2001, 2001]
    assert [job.evaluation.cem.iterations for job in planned] == [2, 3, 2, 3]
    assert [job.evaluation.sim.camera.size_px for job in planned] == [72, 80, 72, 80]
    assert [job.evaluation.objects for job in planned] == ["unseen"] * 4


@pytest.fixture
def store(tmp_path):
    rng, environment = np.random.default_rng(0), make_environment(SimConfig())
    path = tmp_path / "store"
    with EpisodeStore(path, StoreFormat.for_images(72)) as store:
        for _ in range(4):
            ran = run_episode(
                environment, ScriptedPolicy(), rng, stop=never, clock=time.monotonic, collector="test", facts={}
            )
            assert ran is not None
            store.append(ran.episode)
    environment.close()
    return path


@pytest.mark.drill
@pytest.mark.timeout(400)
def test_two_variants_from_grasps_to_table(qtopt, store, tmp_path):
    output = tmp_path / "ablation"
    words = ["ablate", "--store", store, "--output", output, "--variants", "supervised", "--steps", "20"]
    words += ["--episodes", "4", "--processes", "2", "--learner.batch", "8", "--label.batch-size", "32"]
    words += ["--cem.samples", "8", "--cem.elites", "2"]
    code, out, err = qtopt(*words)
    assert code == 0, err
    table = json.loads((output / "ablation.json").read_text())
    assert [variant["name"] for variant in table["variants"]] == ["baseline", "supervised"]
    assert [variant["episodes"] for variant in table["variants"]] == [4, 4]
    assert (table["objects"], table["grasps"], table["profile"], table["seeds"]) == ("unseen", 4, "compact", [0])
    assert table["command"].startswith("qtopt ")
    assert {"commit", "hardware", "wall_s"} <= table.keys()
    for variant in table["variants"]:
        low, high = variant["interval"]
        assert low <= variant["final_success"] <= high
    assert table["variants"][1]["to_baseline"]["pairs"] == 4
    assert "to_baseline" not in table["variants"][0]
    scenes = []
    for name in ("baseline", "supervised"):
        result = json.loads((output / "runs" / f"{name}-seed0" / "eval" / "result.json").read_text())
        scenes.append([row["scene_seed"] for row in result["rows"]])
        assert (result["step"], result["objects"]) == (20, "unseen")
    assert scenes[0] == scenes[1]
    page = (output / "README.md").read_text()
    assert "| `supervised` | did the episode succeed" in page
    assert page.strip() in out

    results = [path.stat().st_mtime_ns for path in sorted(output.glob("runs/*/eval/result.json"))]
    code, out, _ = qtopt(*words)
    assert code == 0
    assert "trains" not in out
    assert [path.stat().st_mtime_ns for path in sorted(output.glob("runs/*/eval/result.json"))] == results
    code, _, err = qtopt(*words, "--target.discount", "0.8")
    assert code != 0
    assert "found a variant with other settings" in err
