"""Two evaluations of the same scenes: counts, exact test and interval by hand; other scenes are refused."""

import pytest

from qtopt.errors import ConfigError
from qtopt.loops.compare import Paired, pair


def report(outcomes, **facts):
    names = {"+": "success", "-": "dropped", "?": "aborted"}
    rows = [{"index": i, "scene_seed": 7 + i, "outcome": names[sign]} for i, sign in enumerate(outcomes)]
    return {"seed": 3, "objects": "unseen", "protocol": "fresh", "sim": {"camera": 1, "object_scale": 1.0}} | {
        "rows": rows,
        **facts,
    }


def test_scenes_are_counted_by_who_succeeded():
    paired = pair(report("++--+?"), report("+-+--+"))
    assert paired == Paired(both=1, only_a=2, only_b=1, neither=1, void=1)
    assert paired.difference == pytest.approx(0.2)
    assert paired.to_json()["success_a"] == 0.6


def test_the_exact_test_by_hand():
    """Of 5 fair coins: none or one head, or as many tails, 2 (1 + 5) / 32; a single disagreement says nothing."""
    assert Paired(9, 4, 1, 3).p_value() == pytest.approx(12 / 32)
    assert Paired(9, 0, 10, 3).p_value() == pytest.approx(2 / 1024)
    assert Paired(9, 1, 0, 3).p_value() == 1.0
    assert Paired(9, 0, 0, 3).p_value() == 1.0


def test_the_interval_by_hand():
    """40 pairs, 8 and 3: middle (8.5 - 3.5) / 42, half 1.96 sqrt(12 - 25 / 42) / 42."""
    low, high = Paired(20, 8, 3, 9).interval()
    assert (low, high) == pytest.approx((0.11905 - 0.15760, 0.11905 + 0.15760), abs=1e-4)
    assert Paired(20, 8, 3, 9).interval() == pytest.approx(tuple(-x for x in Paired(20, 3, 8, 9).interval()[::-1]))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (report("++", seed=4), "seed 3 and 4"),
        (report("++", objects="other"), "objects 'unseen' and 'other'"),
        (report("+++"), "episodes 2 and 3"),
        (report("++", protocol="emptying"), "expected fresh"),
        (report("++", sim={"object_scale": 0.5}), "object_scale"),
        (
            report("++") | {"rows": [{"index": i, "scene_seed": 0, "outcome": "success"} for i in (0, 1)]},
            "other scenes",
        ),
    ],
)
def test_other_scenes_are_refused(other, words):
    with pytest.raises(ConfigError, match=words):
        pair(report("++"), other)


def test_cameras_may_differ():
    assert pair(report("+-"), report("++", sim={"camera": 2, "object_scale": 1.0})).only_b == 1
