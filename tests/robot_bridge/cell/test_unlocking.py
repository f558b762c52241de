"""From a lock to the next motion: kept whatever the disk does, unlocked by a person, gone on with when it can be."""

import contextlib
import math
import os
import signal

import pytest

from qtopt.apps.robot import Ack, ack
from qtopt.errors import UnkeptLock
from robot_bridge.cell.places import STATE_VARIABLE
from sim.faults.cells import SimulatedCell, until
from tests.robot_bridge.cell.cells import Beginning, bear_lateness
from tests.robot_bridge.drivers.ur_server import at_dashboard

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    with SimulatedCell("ur", tmp_path_factory.mktemp("sim"), "127.0.91.21", 0.25) as sim:
        bear_lateness(sim.path)
        yield sim


@pytest.fixture(autouse=True)
def state(sim, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    yield
    sim.heal()


@contextlib.contextmanager
def failing(root):
    """Makes the directory of all states unusable for everybody, root included, during the block."""
    aside = root.with_name("aside")
    root.rename(aside)
    root.write_text("no directory")
    try:
        yield
    finally:
        root.unlink()
        aside.rename(root)


def acknowledge(path):
    assert ack.main(Ack(path, operator="a test", reason="looked")) == 0


def press_and_release(sim, cell):
    """Presses the emergency stop, and has a person clear it at the pendant once the cell's processes have locked."""
    sim.inject("emergency_stop")
    assert until(lambda: (lock := cell.robot.processes.lock) is not None and lock.rule == "emergency_stop", 5.0)
    sim.inject("person")


def moves(sim, place, seconds=40.0):
    """Returns whether the tool goes away from where it stood."""
    return until(lambda: math.dist(sim.truth()["tool"][:3], place[:3]) > 0.005, seconds, 0.05)


@pytest.mark.drill
def test_a_lock_that_the_disk_did_not_take_is_written_later_and_waits_for_a_person(sim):
    with Beginning(sim.path) as begun:
        cell, place = begun.cell, sim.truth()["tool"]
        with failing(cell.places.root):
            press_and_release(sim, cell)
            begun.start()
            assert until(lambda: begun.idle > 2, 10.0)
        assert not moves(sim, place, 4.0)
        assert not begun.ended()
        assert cell.places.latched().rule == "emergency_stop"
        acknowledge(sim.path)
        assert moves(sim, place)


def test_a_collector_that_is_ended_before_says_that_the_lock_is_lost(sim):
    with Beginning(sim.path) as begun, failing(begun.cell.places.root):
        press_and_release(sim, begun.cell)
        begun.start()
        assert until(lambda: begun.idle > 1, 10.0)
        begun.end()
        assert isinstance(begun.raised, UnkeptLock)
        assert "could not be stored" in str(begun.raised)


def test_no_episode_begins_where_no_lock_could_be_written(sim):
    with Beginning(sim.path) as begun:
        place = sim.truth()["tool"]
        with failing(begun.cell.places.root):
            begun.start()
            assert not moves(sim, place, 3.0)
            assert not begun.ended()
        assert moves(sim, place)


@pytest.mark.drill
def test_what_is_acknowledged_goes_on_once_the_brakes_are_released(sim):
    with Beginning(sim.path) as begun:
        cell, place, first = begun.cell, sim.truth()["tool"], begun.cell.robot.processes
        sim.inject("emergency_stop")
        assert until(cell.places.latch_file.is_kept, 5.0)
        sim.inject("emergency_stop", on=False)
        at_dashboard(sim.host, "power on")
        begun.start()
        acknowledge(sim.path)
        assert not moves(sim, place, 10.0)
        idle = begun.idle
        assert until(lambda: begun.idle > idle, 20.0), "finished episodes are delivered meanwhile"
        assert not begun.ended(), begun.raised
        assert cell.robot.processes is first
        assert cell.places.latched() is None
        sim.inject("person")
        assert moves(sim, place)


@pytest.mark.drill
def test_a_lock_while_the_cell_cannot_be_started_is_waited_for_as_well(sim):
    with Beginning(sim.path) as begun:
        cell, place = begun.cell, sim.truth()["tool"]
        press_and_release(sim, cell)
        sim.inject("remote_control", on=False)
        begun.start()
        acknowledge(sim.path)
        assert until(lambda: not cell.robot.processes.alive, 10.0)
        cell.places.latch("estop", "for the test")
        sim.inject("person")
        assert not moves(sim, place, 8.0)
        acknowledge(sim.path)
        assert moves(sim, place)


def test_processes_that_somebody_else_ended_wait_for_a_person(sim):
    with Beginning(sim.path) as begun:
        cell, place = begun.cell, sim.truth()["tool"]
        cell.robot.processes.arm.terminate()
        assert until(lambda: not cell.robot.processes.alive, 10.0)
        begun.start()
        assert until(lambda: (latch := cell.places.latched()) is not None and latch.rule == "process_ended", 5.0)
        assert not moves(sim, place, 4.0)
        acknowledge(sim.path)
        assert moves(sim, place)


@pytest.mark.drill
def test_a_look_at_the_cell_is_not_good_for_ever(sim, monkeypatch):
    monkeypatch.setattr("robot_bridge.cell.open._GOOD_FOR_S", 2.0)
    with Beginning(sim.path) as begun:
        cell, place = begun.cell, sim.truth()["tool"]
        press_and_release(sim, cell)
        sim.inject("remote_control", on=False)
        begun.start()
        acknowledge(sim.path)
        assert until(lambda: (latch := cell.places.latched()) is not None and latch.rule == "not_started", 30.0)
        sim.inject("person")
        assert not moves(sim, place, 8.0)
        acknowledge(sim.path)
        assert moves(sim, place)


@pytest.mark.drill
def test_a_person_unlocks_an_arm_that_only_its_own_process_could_see(tmp_path):
    with SimulatedCell("so101", tmp_path, "127.0.91.22") as sim:
        bear_lateness(sim.path)
        with Beginning(sim.path) as begun:
            first = begun.cell.robot.processes
            os.kill(first.arm.pid, signal.SIGKILL)
            assert until(begun.cell.places.latch_file.is_kept, 5.0)
            begun.start()
            assert until(lambda: begun.idle > 2, 10.0)
            acknowledge(sim.path)
            assert until(lambda: begun.cell.robot.processes is not first, 60.0)
            assert begun.raised is None
