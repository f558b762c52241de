"""The judge with arm and camera, and the keeper of the bin, over a fake cell whose bin can be seen."""

import base64
import dataclasses
import json

import cv2
import numpy as np
import pytest

from qtopt.errors import ConfigError, RobotError
from qtopt.specs import make_action
from qtopt.types import Outcome
from robot_bridge import CellConfig, GraspEnv
from robot_bridge.success import DropTestDetector, PhysicalBin
from robot_bridge.success_config import SuccessConfig
from tests.robot_bridge.fake_cell import FakeCell
from tests.robot_bridge.success.test_images import CONFIG, table, with_square

CLEAR_M = (0.3, -0.4, 0.3)
QUICK = dataclasses.replace(CONFIG, check_wait_s=0.0, clear_wait_s=0.0, settle_s=0.0, audit_every=3)


class SeenCell(FakeCell):
    """What the fingers let go shows in the picture where ``lands``; ``hidden`` objects are seen by the camera only."""

    def __init__(self):
        super().__init__()
        self.lands, self.hidden, self.pictures, self.let_go_at = True, False, 0, None
        self.reached = []

    def move(self, target):
        self.reached.append(super().move(target))
        return self.reached[-1]

    def grip(self, *, close):
        if not close and self.closed:
            self.let_go_at = self.tool
        super().grip(close=close)

    def capture(self):
        self.pictures += 1
        held = self.grip_finds > 0.003 or self.hidden
        clean = table(self.pictures)
        return with_square(clean, 40, 40) if self.let_go_at and held and self.lands else clean


@pytest.fixture
def cell():
    return SeenCell()


def judged(cell, config=QUICK, waits=None):
    sleep = (waits if waits is not None else []).append
    detector = DropTestDetector(cell, cell, config, CellConfig(), CLEAR_M, sleep=sleep)
    keeper = PhysicalBin(detector)
    return detector, keeper, GraspEnv(cell, cell, detector, keeper, CellConfig())


def grasp(environment):
    environment.start_episode()
    environment.act(make_action(close=True))
    return environment.act(make_action(terminate=True))


def test_a_held_object_is_dropped_seen_and_counted(cell):
    waits = []
    _, keeper, environment = judged(cell, dataclasses.replace(QUICK, settle_s=1.0, check_wait_s=0.3), waits)
    cell.grip_finds = 0.03
    result = grasp(environment)
    assert (result.outcome, result.reward) == (Outcome.SUCCESS, 1.0)
    assert cell.let_go_at.z_m == pytest.approx(QUICK.drop_height_m)
    assert abs(cell.let_go_at.x_m - 0.6) <= 0.05
    assert abs(cell.let_go_at.y_m) <= 0.05
    assert (cell.tool.x_m, cell.tool.y_m, cell.tool.z_m) == CLEAR_M
    assert waits == [0.3, 0.0, 1.0]
    verdict = result.metadata["verdict"]
    json.dumps(result.metadata, allow_nan=False)
    assert (verdict["judgement"], verdict["width_full"], verdict["audited"]) == ("success", True, False)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(verdict["pictures_jpeg"][1]), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture.shape == (96, 96, 3)
    red, green, _ = picture[46, 46].astype(int)
    assert red - green > 100
    assert keeper.prepare(None) == {"judge": {"unknown": 0, "audited": 0, "missed": 0}}


def test_the_tool_is_not_turned_before_it_has_let_go(cell):
    _, _, environment = judged(cell)
    environment.start_episode()
    cell.tool, cell.grip_finds = dataclasses.replace(cell.tool, yaw_rad=0.9), 0.03
    environment.act(make_action(close=True))
    assert environment.act(make_action(terminate=True)).outcome is Outcome.SUCCESS
    assert cell.let_go_at.yaw_rad == pytest.approx(0.9)
    assert [tool.yaw_rad for tool in cell.reached] == pytest.approx([0.9] * len(cell.reached))


def test_what_slipped_away_unseen_is_unknown(cell):
    _, keeper, environment = judged(cell)
    cell.grip_finds, cell.lands = 0.03, False
    assert grasp(environment).outcome is Outcome.UNKNOWN
    assert keeper.prepare(None)["judge"]["unknown"] == 1


@pytest.mark.parametrize("drop_test", ["auto", "always", "never"])
def test_fingers_that_did_not_close_prove_nothing_and_are_not_lowered_into_the_bin(cell, drop_test):
    _, keeper, environment = judged(cell, dataclasses.replace(QUICK, drop_test=drop_test))
    cell.grip_finds, cell.hidden = 0.0995, True  # jammed; and what they would move looks like an object
    result = grasp(environment)
    assert result.outcome is Outcome.UNKNOWN
    assert "did not close" in result.metadata["verdict"]["reason"]
    assert cell.let_go_at is None
    keeper.prepare(None)
    assert cell.let_go_at.z_m > QUICK.drop_height_m + 0.1, "nor afterwards"


def test_every_third_empty_close_is_audited_and_misses_are_counted(cell):
    _, keeper, environment = judged(cell)
    outcomes = [grasp(environment).outcome for _ in range(3)]
    cell.hidden = True
    outcomes += [grasp(environment).outcome for _ in range(2)]
    cell.let_go_at = None
    outcomes.append(grasp(environment).outcome)
    assert outcomes == [Outcome.NOTHING_GRASPED] * 5 + [Outcome.SUCCESS]
    assert (keeper.audited, keeper.missed) == (2, 1)


@pytest.mark.parametrize(("drop_test", "doubts"), [("always", True), ("never", False)])
def test_doubts_follow_the_configuration(cell, drop_test, doubts):
    detector, _, _ = judged(cell, dataclasses.replace(QUICK, drop_test=drop_test))
    assert [detector.doubts() for _ in range(5)] == [doubts] * 5


def test_an_arm_short_of_its_clear_pose_gives_no_label_and_the_object_goes_back_later(cell):
    detector, keeper, environment = judged(cell)
    cell.grip_finds = 0.03
    cell.blocked_z_m = 0.35
    result = grasp(environment)
    assert result.outcome is Outcome.UNKNOWN
    assert "50 mm from its clear pose" in result.metadata["verdict"]["reason"]
    assert detector.lifted()
    cell.blocked_z_m = -1.0
    keeper.prepare(None)
    assert cell.let_go_at.z_m == pytest.approx(QUICK.drop_height_m)
    assert not detector.lifted()


def test_a_fault_while_judging_aborts_and_counts_nothing(cell):
    _, keeper, environment = judged(cell)
    environment.start_episode()
    cell.grip_finds = 0.03
    environment.act(make_action(close=True))
    cell.fault = "protective stop"
    result = environment.act(make_action(terminate=True))
    assert result.outcome is Outcome.ABORTED
    assert result.metadata == {"abort": "protective stop"}
    cell.fault = ""
    assert keeper.prepare(None)["judge"]["unknown"] == 0


def test_more_than_five_unknown_in_a_hundred_stop_the_work_until_acknowledged(cell):
    _, keeper, _ = judged(cell)
    for _ in range(95):
        keeper.finish(Outcome.SUCCESS)
    for _ in range(5):
        keeper.finish(Outcome.UNKNOWN)
        keeper.finish(Outcome.ABORTED)
    keeper.prepare(None)
    keeper.finish(Outcome.UNKNOWN)
    for _ in range(2):
        with pytest.raises(RobotError, match="6 of the last 100"):
            keeper.prepare(None)
    keeper.acknowledge()
    keeper.prepare(None)


def test_a_clear_pose_below_the_rim_is_refused(cell):
    with pytest.raises(ConfigError, match="clear pose"):
        DropTestDetector(cell, cell, SuccessConfig(), CellConfig(), (0.3, -0.4, 0.1))


def test_leaving_the_bin_is_announced(cell):
    told = []
    detector = DropTestDetector(
        cell, cell, QUICK, CellConfig(), CLEAR_M, sleep=lambda _: None, leave_bin=lambda: told.append(cell.tool)
    )
    cell.closed, cell.width_m, cell.grip_finds = True, 0.03, 0.03
    start = cell.tool
    assert detector.judge() is True
    assert told[0] == start


def test_a_cell_that_aborts_more_than_half_of_its_episodes_waits_for_a_person(cell):
    _, keeper, _ = judged(cell)
    for number in range(20):
        keeper.prepare(None)
        keeper.finish(Outcome.ABORTED if number % 2 else Outcome.NOTHING_GRASPED)
    keeper.prepare(None)
    keeper.finish(Outcome.ABORTED)
    with pytest.raises(RobotError, match="11 of the last 21 episodes were aborted"):
        keeper.prepare(None)
    keeper.acknowledge()
    keeper.prepare(None)
