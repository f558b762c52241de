"""The procedure of judging: what it asks for, in which order, and what it concludes."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.errors import ConfigError, RobotError
from robot_bridge.success import Judgement, Stage, StagedJudge
from robot_bridge.success_config import SuccessConfig
from tests.robot_bridge.success.test_images import CONFIG, table, with_square

BEFORE, SAME, MORE = table(0), table(1), with_square(table(2), 40, 40)
ELSEWHERE = with_square(table(3), 0, 40, 12)
BRIGHT = (MORE * 0.7).astype("uint8")
FULL, HELD, EMPTY = 0.03, 0.002, 0.0005


def run(config, widths, after, *, audit=False):
    judge = StagedJudge(config, HELD)
    judge.begin(audit=audit)
    asked = []
    given_widths = iter(widths)
    while stage := judge.needs():
        asked.append(stage)
        if stage in (Stage.WIDTH_CHECK, Stage.WIDTH_CLEAR):
            judge.feed(stage, width_m=next(given_widths))
        else:
            judge.feed(stage, picture=BEFORE if stage is Stage.PICTURE_BEFORE else after)
    return judge.verdict(), asked


@pytest.mark.parametrize(
    ("drop_test", "audit", "widths", "after", "judgement", "pictures"),
    [
        ("auto", False, (FULL, FULL), MORE, Judgement.SUCCESS, 2),
        ("auto", False, (FULL, FULL), SAME, Judgement.UNKNOWN, 2),
        ("auto", False, (EMPTY, FULL), SAME, Judgement.UNKNOWN, 2),
        ("auto", False, (FULL, EMPTY), SAME, Judgement.FAILURE, 2),
        ("auto", False, (FULL, EMPTY), MORE, Judgement.SUCCESS, 2),
        ("auto", False, (FULL, FULL), ELSEWHERE, Judgement.UNKNOWN, 2),
        ("auto", False, (FULL, FULL), BRIGHT, Judgement.UNKNOWN, 2),
        ("auto", False, (EMPTY, EMPTY), MORE, Judgement.FAILURE, 0),
        ("auto", True, (EMPTY, EMPTY), SAME, Judgement.FAILURE, 2),
        ("auto", True, (EMPTY, EMPTY), MORE, Judgement.SUCCESS, 2),
        ("always", False, (EMPTY, EMPTY), MORE, Judgement.SUCCESS, 2),
        ("always", False, (EMPTY, EMPTY), SAME, Judgement.FAILURE, 2),
        ("never", True, (FULL, FULL), SAME, Judgement.SUCCESS, 0),
        ("never", True, (EMPTY, EMPTY), MORE, Judgement.FAILURE, 0),
        ("never", False, (FULL, EMPTY), SAME, Judgement.FAILURE, 0),
    ],
)
def test_widths_and_pictures_are_fused(drop_test, audit, widths, after, judgement, pictures):
    verdict, asked = run(dataclasses.replace(CONFIG, drop_test=drop_test), widths, after, audit=audit)
    assert verdict.judgement is judgement
    assert verdict.held is {"success": True, "failure": False, "unknown": None}[judgement.value]
    assert len(verdict.pictures) == pictures
    assert asked == [Stage.WIDTH_CHECK, Stage.WIDTH_CLEAR, Stage.PICTURE_BEFORE, Stage.PICTURE_AFTER][: 2 + pictures]
    assert verdict.missed == (judgement is Judgement.SUCCESS and widths == (EMPTY, EMPTY))
    assert verdict.reason


@given(
    st.tuples(st.floats(0.0, 0.08), st.floats(0.0, 0.08)),
    st.booleans(),
    st.sampled_from(["auto", "always", "never"]),
    st.sampled_from([SAME, MORE, ELSEWHERE]),
)
def test_no_success_without_evidence(widths, audit, drop_test, after):
    config = dataclasses.replace(CONFIG, drop_test=drop_test)
    verdict, _ = run(config, widths, after, audit=audit)
    full = max(widths) >= HELD
    there = widths[1] >= HELD
    assert verdict.width_full == full
    if verdict.judgement is Judgement.SUCCESS:
        assert (after is MORE and verdict.score >= 1.0) if verdict.pictures else (there and drop_test == "never")
    if verdict.judgement is Judgement.FAILURE:
        assert not there


def test_what_was_not_asked_for_is_refused():
    judge = StagedJudge(CONFIG, HELD)
    with pytest.raises(RobotError, match="begin"):
        judge.needs()
    judge.begin()
    with pytest.raises(RobotError, match="no verdict yet"):
        judge.verdict()
    for stage, value in ((Stage.WIDTH_CLEAR, {"width_m": 0.1}), (Stage.WIDTH_CHECK, {}), (Stage.PICTURE_AFTER, {})):
        with pytest.raises(RobotError, match="expected width_check"):
            judge.feed(stage, **value)


def test_a_spoilt_procedure_is_unknown_and_a_new_one_knows_nothing_of_it():
    judge = StagedJudge(CONFIG, HELD)
    judge.begin()
    judge.feed(Stage.WIDTH_CHECK, width_m=FULL)
    judge.spoil("the arm is in the way")
    assert judge.needs() is None
    assert (judge.verdict().judgement, judge.verdict().reason) == (Judgement.UNKNOWN, "the arm is in the way")
    judge.begin()
    assert judge.needs() is Stage.WIDTH_CHECK


@pytest.mark.parametrize(
    "settings",
    [
        {"control_area_px": 0.0},
        {"gain_limit": float("nan")},
        {"width_margin_m": 0.0},
        {"frames": 0},
        {"settle_s": -1.0},
        {"drop_share": 0.0},
        {"bin_region": ((0, 0), (1, 1))},
    ],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError):
        SuccessConfig(**settings)
