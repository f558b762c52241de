"""Evaluation on fixed scenes: repeatable, independent of its shards, with every episode on record."""

import json

import cv2
import numpy as np
import pytest

from qtopt.agent.exploration import ScriptedPolicy
from qtopt.errors import ConfigError
from qtopt.loops.emptying import removed_of, summarise_emptying
from qtopt.loops.evaluate import EvaluationConfig, evaluate, summarise
from qtopt.loops.filmstrip import filmstrip, page
from qtopt.loops.report import headline, merge, read_report, record
from sim import SimConfig, make_environment
from tests.episodes import make_episode

FACTS = {"policy": "scripted", "step": 0, "objects": "train", "seed": 3}


def rows(environment, **settings):
    config = EvaluationConfig(episodes=6, seed=3, **settings)
    return [one.to_json() | {"policy_ms_per_step": 0} for one in evaluate(environment, ScriptedPolicy(), config=config)]


def test_the_same_seed_gives_the_same_episodes_whatever_the_shards(environment):
    whole = rows(environment, episodes_per_scene=2)
    assert [row["index"] for row in whole] == list(range(6))
    assert len({row["scene_seed"] for row in whole}) == 3
    parts = rows(environment, episodes_per_scene=2, shards=2) + rows(
        environment, episodes_per_scene=2, shard=1, shards=2
    )
    assert sorted(parts, key=lambda row: row["index"]) == whole


def test_a_report_has_every_episode_and_pictures(environment, tmp_path):
    config = EvaluationConfig(episodes=3, seed=1)
    evaluated = evaluate(environment, ScriptedPolicy(), config=config)
    report = record(evaluated, tmp_path / "a.json", FACTS, filmstrips=2, stop=lambda: False)
    assert report == read_report(tmp_path / "a.json")
    assert report["episodes"] == 3 == len(report["rows"])
    assert report["policy"] == "scripted"
    picture = cv2.imread(str(tmp_path / "filmstrips" / "a.png"))
    assert picture.shape[0] > 200


def test_an_evaluation_cut_short_leaves_no_file(environment, tmp_path):
    evaluated = evaluate(environment, ScriptedPolicy(), config=EvaluationConfig(episodes=3), stop=lambda: True)
    record(evaluated, tmp_path / "a.json", FACTS, filmstrips=2, stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_figures_by_hand():
    outcomes = ["success", "success", "dropped", "timed_out", "aborted"]
    report = summarise([{"index": i, "outcome": name, "steps": 4 + i} for i, name in enumerate(outcomes)])
    assert report["episodes"] == 4
    assert report["success"] == 0.5
    assert report["wilson_95"] == [0.15, 0.85]
    assert report["steps_per_grasp"] == 5.5
    assert report["aborted"] == 1
    assert report["outcomes"]["dropped"] == 1


def attempts(scene, objects, signs):
    names = {"+": "success", "-": "dropped"}
    left = objects
    for number, sign in enumerate(signs, 1):
        yield {"scene": scene, "attempt": number, "objects_before": left, "outcome": names[sign], "steps": 3}
        left -= sign == "+"


def test_emptied_bins_by_hand():
    rows = [*attempts(0, 3, "+-++"), *attempts(1, 5, "-+----+")]
    told = summarise_emptying(rows)
    assert (told["bins"], told["objects"], told["removed"], told["bins_emptied"]) == (2, 8, 5, 1)
    assert told["share_removed"] == 0.625
    assert told["share_removed_after"] == {"5": 0.5, "10": 0.625, "15": 0.625}
    assert told["over_bins"]["mean"] == 0.7
    assert told["over_bins"]["standard_deviation"] == pytest.approx(0.4243, abs=1e-4)
    assert (told["over_bins"]["worst"], told["over_bins"]["best"]) == (0.4, 1.0)
    assert removed_of(rows, 2).successes == 2


def test_a_bin_is_emptied_attempt_by_attempt(tmp_path):
    environment = make_environment(SimConfig(object_count=(2, 2), keep_scene=True, stuck_after=1, objects="other"))
    config = EvaluationConfig(episodes=8, seed=4, episodes_per_scene=4, until_empty=True)
    evaluated = evaluate(environment, ScriptedPolicy(), config=config)
    facts = FACTS | {"protocol": "emptying"}
    report = record(evaluated, tmp_path / "a.json", facts, filmstrips=0, stop=lambda: False)
    environment.close()
    for scene in (0, 1):
        rows = [row for row in report["rows"] if row["scene"] == scene]
        assert [row["attempt"] for row in rows] == list(range(1, len(rows) + 1))
        lifted = 0
        for row in rows:
            assert row["objects_before"] <= 2 - lifted
            lifted += row["outcome"] == "success"
        assert len(rows) == 4 or lifted == 2
    told = headline(report)
    assert told["success"] == report["emptying"]["share_removed"]
    assert told["trials"] == 4
    assert told["episodes"] == report["episodes"]


def test_shards_are_put_together_in_order(tmp_path):
    shard = {**FACTS, **summarise([])}
    parts = [
        shard | {"rows": [{"index": 1, "outcome": "success", "steps": 2}]},
        shard | {"rows": [{"index": 0, "outcome": "dropped", "steps": 4}]},
    ]
    report = merge(parts, tmp_path / "all.json")
    assert [row["index"] for row in report["rows"]] == [0, 1]
    assert report["success"] == 0.5
    assert report["seed"] == 3
    assert json.loads((tmp_path / "all.json").read_text()) == report


def test_filmstrips_show_success_in_green(rng):
    won, lost = (filmstrip(make_episode(rng, success=good, size_px=36), "a") for good in (True, False))
    assert won.dtype == np.uint8
    assert won[20, 1].tolist() == [60, 200, 60]
    assert lost[20, 1].tolist() == [220, 60, 60]
    assert page([won, lost[:, :100]]).shape == (2 * won.shape[0], won.shape[1], 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"episodes": 0}, "episodes 0"), ({"shard": 2, "shards": 2}, "shard is 2"), ({"seed": -1}, "seed -1")],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        EvaluationConfig(**settings)
