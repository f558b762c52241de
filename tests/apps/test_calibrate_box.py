"""The places that a person leads the tool to become the safety box: each is read anew, from an arm that stands."""

import contextlib
import io
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qtopt.apps.robot import Calibrate, calibrate
from qtopt.errors import ConfigError, RobotError
from robot_bridge.contracts import ArmMode, ArmState, Pose

CELL = Path(__file__).parents[2] / "robot_bridge" / "cells" / "ur5e-robotiq.toml"
LED_M = ((0.7, 0.2, -0.011), (0.4, -0.2, -0.01), (0.55, 0.2, 0.09))
STILL, WALKING = (0.0,) * 6, (0.05, *(0.0,) * 5)


class Arm:
    """Reports the places that it was led to: one more each time Enter is pressed, then ``after`` in between."""

    def __init__(self, places, *, after=()):
        self.places, self.after, self.clock_s = iter(places), list(after), itertools.count(1.0, 0.01)
        self.state = None

    def readline(self):
        x, y, z = next(self.places)
        self.state = ArmState(
            0, next(self.clock_s), Pose((x, y, z), (1.0, 0.0, 0.0, 0.0)), STILL, None, (), ArmMode.READY
        )
        return "\n"

    def report(self):
        changes = self.after.pop(0) if len(self.after) > 1 else (self.after or [{}])[0]
        return replace(self.state, **{"t_controller_s": next(self.clock_s), **changes})


@pytest.fixture
def box(monkeypatch):
    """Runs the calibration over an arm; returns what it said."""

    def run(arm):
        said = io.StringIO()
        monkeypatch.setattr(sys, "stdin", arm)
        monkeypatch.setattr(calibrate, "_NEW_S", 0.2)
        monkeypatch.setattr(calibrate, "_reports", lambda _: contextlib.nullcontext(arm.report))
        with contextlib.redirect_stdout(said):
            assert calibrate.main(Calibrate(CELL, "box")) == 0
        return said.getvalue()

    return run


def test_corners_and_rim_are_found(box):
    said = box(Arm(LED_M))
    for line in (
        "floor_z_m = -0.0110",
        "inner_min_m = [0.4000, -0.2000]",
        "inner_max_m = [0.7000, 0.2000]",
        "rim_z_m = 0.0900",
    ):
        assert line in said.splitlines()


def test_an_arm_that_is_led_still_is_waited_for(box):
    assert "rim_z_m = 0.0900" in box(Arm(LED_M, after=[{"twist": WALKING}, {"twist": WALKING}, {}]))


@pytest.mark.parametrize("changes", [{"t_controller_s": 1.0}, {"mode": ArmMode.OFFLINE}, {"twist": WALKING}])
def test_an_old_report_and_an_arm_that_moves_are_no_place(box, changes):
    with pytest.raises(RobotError, match="standing arm"):
        box(Arm(LED_M, after=[changes]))


def test_a_place_that_was_there_before_is_none(box):
    with pytest.raises(ConfigError, match="led on"):
        box(Arm((LED_M[0], LED_M[1], LED_M[1])))


def test_a_rim_below_the_floor_is_no_bin(box):
    with pytest.raises(ConfigError, match="rim_z_m"):
        box(Arm((LED_M[0], LED_M[1], (0.55, 0.2, -0.05))))


@pytest.mark.parametrize(("what", "least"), [("gripper", 20), ("success", 50)])
def test_too_few_repeats_are_refused_before_anything_moves(what, least):
    with pytest.raises(ConfigError, match=f"wants {least} at least"):
        calibrate.main(Calibrate(CELL, what, least - 1))
