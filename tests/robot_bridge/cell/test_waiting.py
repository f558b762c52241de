"""A collector's cell that may not begin: it waits, delivers meanwhile, and goes on when the cause is gone."""

import contextlib
import re
import threading
import time

import numpy as np
import pytest

from qtopt.apps.drills.disks import small_disk
from qtopt.specs import make_action
from qtopt.types import Outcome
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.places import STATE_VARIABLE
from robot_bridge.contracts import Latch
from robot_bridge.robot import ToolPose
from sim.faults.cells import SimulatedCell, until
from tests.mounting import mounted_or_skipped
from tests.robot_bridge.cell.cells import Beginning, after, bear_lateness, wait_still

LOCKING = Latch("latch_file", "an empty file locks before it says why", 0.0)
pytestmark = [pytest.mark.realtime, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    with SimulatedCell("ur", tmp_path_factory.mktemp("sim"), "127.0.91.5", 0.25) as sim:
        bear_lateness(sim.path)
        yield sim


@pytest.fixture(autouse=True)
def state(sim, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    yield
    sim.heal()


@pytest.fixture
def small(tmp_path):
    with mounted_or_skipped(small_disk(tmp_path / "small", 64)) as disk:
        yield disk


@contextlib.contextmanager
def slider_down(sim):
    sim.inject("speed_slider", fraction=0.1)
    try:
        yield
    finally:
        sim.inject("speed_slider", fraction=1.0)


@contextlib.contextmanager
def silent_gripper(sim):
    sim.inject("gripper", what="silent")
    try:
        yield
    finally:
        sim.inject("gripper", on=False)


def rewritten(sim, tmp_path, *changes):
    """Returns a copy of the cell file with lines replaced."""
    text = sim.path.read_text()
    for pattern, line in changes:
        text, count = re.subn(f"(?m)^{pattern}$", line, text)
        assert count == 1
    path = tmp_path / "cell.toml"
    path.write_text(text)
    return path


def test_a_full_disk_and_a_lock_are_waited_for(sim, small, tmp_path):
    path = rewritten(sim, tmp_path, ("dir = .*", f'dir = "{small}"'), ("min_free = .*", "min_free = 0.5"))
    with Beginning(path) as begun:
        cell, before = begun.cell, sim.truth()["tool"]
        (small / "filling").write_bytes(bytes(48 << 20))
        cell.places.latch("estop", "for the test")
        begun.start()
        assert until(lambda: begun.idle, 20.0)
        cell.places.latch_file.acknowledge("the test", "nothing was wrong")
        delivered = begun.idle
        assert until(lambda: begun.idle > delivered + 3, 30.0)
        assert not begun.ended()
        assert sim.truth()["tool"] == pytest.approx(before, abs=1e-3)
        (small / "filling").unlink()
        assert begun.ended(30.0)
        assert begun.raised is None
        assert 0.15 < sim.truth()["tool"][2] < 0.21  # at an episode's start


@pytest.mark.drill
def test_what_cannot_begin_waits_for_a_person(sim):
    with Beginning(sim.path) as begun:
        places = begun.cell.places
        with silent_gripper(sim):
            begun.start()
            assert until(lambda: (places.latched() or LOCKING).rule == "no_episode", 60.0)
            assert "gripper" in places.latched().reason
        begun.end()
        assert str(begun.raised) == "told to end while motion was locked"


@pytest.mark.drill
def test_its_processes_are_begun_anew_however_soon_a_person_acknowledges(sim):
    with Beginning(sim.path) as begun:
        cell = begun.cell
        before = cell.robot.processes.arm.pid
        with silent_gripper(sim):
            begun.start()
            assert until(lambda: (cell.places.latched() or LOCKING).rule == "no_episode", 60.0, 0.002)
            cell.places.latch_file.acknowledge("the test", "within milliseconds")
        assert begun.ended(60.0)
        assert begun.raised is None
        assert cell.robot.processes.arm.pid != before


def test_a_step_that_an_operator_held_is_not_gone_on_with(sim, tmp_path):
    path = rewritten(sim, tmp_path, ("speed_m_s = .*", "speed_m_s = 0.07"))
    with contextlib.closing(PhysicalCell(path, 72, stop=after(60.0))) as cell:
        start = cell.start_episode(0).tool_pose
        away_m = -0.1 if start[1] > 0 else 0.1
        results = []
        acting = threading.Thread(target=lambda: results.append(cell.act(make_action((0.0, away_m, 0.0), close=True))))
        acting.start()
        try:
            assert until(lambda: abs(sim.truth()["twist"][1]) > 0.03, 20.0, 0.002)
            with slider_down(sim):
                stood = wait_still(sim)
        finally:
            acting.join(20.0)
        (result,) = results
        assert sim.truth()["tool"] == pytest.approx(stood["tool"], abs=1e-3)
        assert result.outcome is None
        assert result.executed[1] == pytest.approx(stood["tool"][1] - start[1], abs=5e-3)
        assert abs(result.executed[1]) < 0.08
        assert not result.observation.gripper_closed
        assert not sim.truth()["moving"]
        assert cell.act(make_action((0.0, 0.0, -0.02))).outcome is None  # chosen anew, it moves again
        assert sim.truth()["tool"][2] == pytest.approx(stood["tool"][2] - 0.02, abs=2e-3)


def test_a_pose_that_is_no_number_is_not_part_of_an_episode(sim):
    with contextlib.closing(PhysicalCell(sim.path, 72, stop=after(60.0))) as cell:
        cell.start_episode()
        sim.inject("nan", on=True)
        try:
            result = cell.act(make_action((0.0, 0.0, -0.02)))
        finally:
            sim.inject("nan", on=False)
        assert result.outcome is Outcome.ABORTED
        assert np.isfinite(result.tool_pose).all()
        assert np.isfinite(result.observation.height_to_bottom)


@pytest.mark.drill
def test_a_protective_stop_is_cleared_late_and_once_in_a_place_where_the_cell_allows_it(sim, tmp_path):
    path = tmp_path / "cell.toml"
    path.write_text(f"{sim.path.read_text()}\n[recovery]\nauto_recover = true\n")
    with Beginning(path) as begun:
        cell = begun.cell
        begun.start()
        assert begun.ended(60.0)
        sim.inject("protective_stop")
        assert cell.act(make_action((0.0, 0.0, -0.02))).outcome is Outcome.ABORTED
        place = wait_still(sim)["tool"]
        began = time.monotonic()
        begun.start()
        time.sleep(4.5)
        assert sim.truth()["tool"] == pytest.approx(place, abs=1e-3)
        assert begun.ended(30.0)
        assert begun.raised is None
        assert time.monotonic() - began > 5.0
        assert cell.places.latched() is None
        cell.robot.rise()
        cell.robot.move(ToolPose(*place))
        sim.inject("protective_stop")
        assert until(lambda: (cell.places.latched() or LOCKING).rule == "protective_stop", 5.0)
        assert "in the same place before" in cell.places.latched().reason


@pytest.mark.drill
def test_a_gripper_that_is_silent_for_a_while_costs_an_episode_and_no_person(sim):
    with contextlib.closing(PhysicalCell(sim.path, 72, stop=after(100.0))) as cell:
        cell.start_episode()
        sim.inject("gripper", what="silent")
        assert until(lambda: "silent" in cell.robot.processes.report().note, 5.0)
        assert cell.act(make_action((0.0, 0.0, -0.02))).outcome is Outcome.ABORTED
        heard = threading.Timer(3.0, lambda: sim.inject("gripper", on=False))
        heard.start()
        try:
            cell.start_episode()
        finally:
            heard.join()
        assert cell.act(make_action((0.0, 0.0, -0.02))).outcome is None
        assert cell.places.latched() is None


@pytest.mark.drill
def test_a_hot_joint_is_waited_for_until_it_has_cooled(sim):
    with Beginning(sim.path) as begun:
        cell = begun.cell
        begun.start()
        assert begun.ended(60.0)
        try:
            sim.inject("hot_joint", celsius=71.0)
            assert cell.act(make_action((0.0, 0.0, -0.02))).outcome is Outcome.ABORTED
            place = wait_still(sim)["tool"]
            begun.start()
            for celsius in (69.0, 66.0):
                sim.inject("hot_joint", celsius=celsius)
                time.sleep(2.5)
                assert not begun.ended()
                assert sim.truth()["tool"] == pytest.approx(place, abs=1e-3)
        finally:
            sim.inject("hot_joint", celsius=64.0)
        assert begun.ended(30.0)
        assert begun.raised is None
        assert cell.act(make_action((0.0, 0.0, -0.02))).outcome is None
        assert cell.places.latched() is None
