"""The plant lives by the clock on the wall, moves by force alone, and stops where it says."""

import threading
import time

import numpy as np
import pytest

from qtopt.errors import ConfigError, RobotError
from robot_bridge import ToolPose
from sim import SimConfig
from sim.furniture import BIN_CENTRE_M
from sim.plant import Plant
from sim.plant_motion import Fingers
from sim.world import TIME_STEP_S

pytestmark = pytest.mark.realtime
X, Y = BIN_CENTRE_M
HIGH = ToolPose(X, Y, 0.25, 0.0)
THIN_M = 0.002


@pytest.fixture(scope="module")
def plant():
    """Runs four times as fast as the clock; what is measured is simulated time."""
    with Plant(SimConfig(object_count=(5, 5)), seed=0, speedup=4.0) as plant:
        yield plant


@pytest.fixture
def high(plant):
    """The plant with its hand open and high up."""
    plant.push((0.0, 0.0, 0.0))
    plant.grip(0.1, 0.3, 20.0)
    plant.move_to(HIGH, 0.5, 2.0, 3.0)
    at_rest(plant)
    return plant


def at_rest(plant, seconds=30.0):
    return wait(plant, lambda state: not state.moving and not state.gripper_moving, seconds)


def wait(plant, condition, seconds=30.0):
    until = time.monotonic() + seconds
    while not condition(state := plant.state()):
        assert time.monotonic() < until, state
        time.sleep(0.002)
    return state


def trace(plant, seconds=30.0):
    """Returns every state until the plant stands still."""
    states, until = [plant.state()], time.monotonic() + seconds
    while states[-1].moving and time.monotonic() < until:
        state = plant.state()
        if state.time_s > states[-1].time_s:
            states.append(state)
        time.sleep(0.0005)
    return states


def test_a_straight_motion_keeps_its_line_its_speed_and_its_end(high):
    goal = ToolPose(X + 0.08, Y - 0.06, 0.15, 0.9)
    start = high.state().tool.array()[:3]
    high.move_to(goal, 0.2, 0.8)
    states = trace(high)
    points = np.array([state.tool.array()[:3] for state in states])
    along = (goal.array()[:3] - start) / np.linalg.norm(goal.array()[:3] - start)
    aside = (points - start) - np.outer((points - start) @ along, along)
    assert len(states) > 8
    assert np.linalg.norm(aside, axis=1).max() < 1e-3
    assert max(np.linalg.norm(state.twist[:3]) for state in states) == pytest.approx(0.2, rel=0.03)
    assert max(abs(state.twist[5]) for state in states) < 0.8 * 1.03
    np.testing.assert_allclose(states[-1].tool.array(), goal.array(), atol=1e-3)


@pytest.mark.parametrize(("speed", "decel"), [(0.4, 2.0), (0.25, 0.8)])
def test_a_stop_takes_no_more_than_its_braking_distance(high, speed, decel):
    high.move_to(ToolPose(X, Y, 0.08, 0.0), speed, 4.0)
    wait(high, lambda state: state.twist[2] < -0.95 * speed)
    high.stop(decel)
    before = high.state()
    after = at_rest(high)
    # The state may be of the step before the stop.
    most_m = speed**2 / (2 * decel) + 2e-3 + speed * TIME_STEP_S
    assert before.tool.z_m - after.tool.z_m < most_m
    fastest = abs(before.twist[2])
    assert before.tool.z_m - after.tool.z_m > 0.8 * fastest**2 / (2 * decel)


def test_a_new_target_replaces_the_old_one(high):
    high.move_to(ToolPose(X + 0.1, Y, 0.25, 0.0), 0.3, 1.0)
    wait(high, lambda state: state.twist[0] > 0.1)
    high.move_to(ToolPose(X, Y + 0.1, 0.25, 0.0), 0.3, 1.0)
    np.testing.assert_allclose(at_rest(high).tool.array(), (X, Y + 0.1, 0.25, 0.0), atol=1e-3)


def test_a_stream_of_targets_is_followed(high):
    for step in range(30):
        high.servo_to(ToolPose(X, Y + 0.002 * step, 0.25, 0.0), 0.3, 2.0)
        time.sleep(0.01)
    assert at_rest(high).tool.y_m == pytest.approx(Y + 0.058, abs=1e-3)


def test_what_swings_under_a_sudden_push_comes_to_rest(high):
    high.push((0.0, 0.0, 80.0))
    began_s = high.state().time_s
    wait(high, lambda state: state.time_s > began_s + 1.5)
    at_rest(high, 1.0)
    assert high.state().tool.z_m == pytest.approx(HIGH.z_m + 0.0093, abs=0.001)  # the spring's, less what rubs
    high.push((0.0, 0.0, 0.0))


def test_a_push_is_measured_and_withstood_until_it_is_too_much(high):
    for force_n in (5.0, 15.0, 40.0, 80.0):
        high.push((0.0, 0.0, force_n))
        wait(high, lambda state, n=force_n: state.wrench[2] == pytest.approx(n, abs=0.5))
        time.sleep(0.1)
        assert high.state().tool.z_m == pytest.approx(0.25, abs=0.018)
    high.push((0.0, 0.0, 0.0))
    wait(high, lambda state: abs(state.wrench[2]) < 0.1)


def test_what_stands_in_the_way_blocks_and_is_felt(high):
    wall = ToolPose(X + 0.15 + 0.006, Y, 0.055, np.pi / 2)
    high.move_to(ToolPose(wall.x_m, Y, 0.12, np.pi / 2), 0.4, 2.0, 3.0)
    at_rest(high)
    high.move_to(ToolPose(wall.x_m, Y, 0.01, np.pi / 2), 0.1, 1.0)
    states = trace(high)
    assert states[-1].blocked
    assert states[-1].tool.z_m > 0.035
    assert 30.0 < max(state.wrench[2] for state in states) < 250.0
    high.move_to(HIGH, 0.4, 2.0, 3.0)
    assert not at_rest(high).blocked


def grasped(high):
    """Grasps at the object nearest to the middle and lifts it; a thin edge, which slips, does not count."""
    number, (x, y, _) = min(high.objects(), key=lambda each: abs(each[1][0] - X) + abs(each[1][1] - Y))
    assert number >= 0
    high.move_to(ToolPose(x, y, 0.1, 0.0), 0.5, 2.0, 3.0)
    at_rest(high)
    high.move_to(ToolPose(x, y, 0.012, 0.0), 0.15, 1.0)
    at_rest(high)
    high.grip(0.0, 0.15, 25.0)
    at_rest(high)
    high.move_to(ToolPose(x, y, 0.2, 0.0), 0.25, 1.0)
    state = at_rest(high)
    if state.holding and state.width_m > THIN_M:
        return True
    high.grip(0.1, 0.3, 20.0)
    at_rest(high)
    return False


def test_a_grasp_holds_by_friction_and_the_truth_says_so(high):
    for seed in range(3, 7):
        high.refill(seed)
        if any(grasped(high) for _ in range(4)):
            break
    state = high.state()
    assert state.holding
    assert state.width_m > THIN_M
    assert max(position[2] for _, position in high.objects()) > 0.12
    assert state.wrench[2] < -0.3  # its weight hangs on the fingers
    high.grip(0.1, 0.3, 20.0)
    at_rest(high)
    wait(high, lambda state: not state.holding)  # a long one may turn between the open fingers as it falls


def test_the_camera_sees_what_moves_from_any_thread(high):
    pictures = []
    threads = [threading.Thread(target=lambda: pictures.append(high.image())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {picture.shape for picture in pictures} == {(72, 72, 3)}
    high.move_to(ToolPose(X, Y, 0.1, 0.0), 0.5, 2.0)
    at_rest(high)
    assert np.abs(high.image().astype(int) - pictures[0].astype(int)).max() > 50


def test_a_bin_is_filled_only_under_a_hand_that_is_out_of_the_way(high):
    before = high.objects()
    high.refill(7)
    assert high.objects() != before
    np.testing.assert_allclose(high.state().tool.array(), HIGH.array(), atol=1e-3)
    high.move_to(ToolPose(X, Y, 0.1, 0.0), 0.5, 2.0)
    at_rest(high)
    with pytest.raises(RobotError, match="move it up"):
        high.refill(8)


def test_out_of_reach_is_an_error_and_nothing_moves(high):
    with pytest.raises(RobotError, match="reach"):
        high.move_to(ToolPose(1.5, 0.0, 0.1, 0.0), 0.2, 1.0)
    assert not high.state().moving


def test_time_passes_with_the_clock_also_among_objects():
    """Half of real time is asked for, as other programs may be running; a free machine keeps up altogether."""
    with Plant(SimConfig(object_count=(5, 5)), seed=1) as plant:
        plant.move_to(ToolPose(X, Y, 0.02, 0.0), 0.2, 1.0)
        began, from_s = time.monotonic(), plant.state().time_s
        time.sleep(1.5)
        passed = (plant.state().time_s - from_s) / (time.monotonic() - began)
    assert 0.5 < passed < 1.05
    with pytest.raises(RobotError, match="closed"):
        plant.image()


def test_a_speedup_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="speedup"):
        Plant(SimConfig(), speedup=0.0)


def test_fingers_that_slip_press_with_nothing_for_a_moment_and_want_what_they_wanted():
    fingers = Fingers(0.05)
    fingers.go(0.01, 0.1, 20.0, 0)
    fingers.slip()
    pressed = []
    for _ in range(round(0.5 / TIME_STEP_S)):
        pressed.append(fingers.force_n)
        fingers.advance(TIME_STEP_S)
    assert pressed.count(0.0) == pytest.approx(0.3 / TIME_STEP_S, abs=1)
    assert pressed[-1] == 20.0
    assert fingers.goal_m == pytest.approx(0.01)


@pytest.mark.parametrize("goal_m", [0.0, 0.1])
def test_fingers_that_tremble_in_a_jam_have_come_to_rest(goal_m):
    fingers, rng, ticks = Fingers(0.05), np.random.default_rng(0), 0
    fingers.go(goal_m, 0.1, 20.0, ticks)
    while fingers.moving and ticks < round(1.0 / TIME_STEP_S):
        ticks += 1
        fingers.advance(TIME_STEP_S)
        fingers.observe(np.array([0.03, 0.03]) + rng.uniform(-0.003, 0.003, 2), ticks)
    assert ticks * TIME_STEP_S < 0.5
    assert not fingers.moving
