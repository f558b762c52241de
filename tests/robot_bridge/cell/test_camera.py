"""A camera's process is killed, crashes or freezes, and its camera is unplugged: the arm stands, and it goes on."""

import contextlib
import os
import signal
import threading
import time

import psutil
import pytest

from qtopt.errors import StaleFrame
from qtopt.specs import make_action
from qtopt.types import Outcome
from robot_bridge.cell.camera import REOPENINGS_AN_HOUR, ChildCamera
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.places import STATE_VARIABLE
from robot_bridge.cell_file import load_cell_file
from robot_bridge.contracts import Latch
from sim.faults.cells import SimulatedCell, until
from tests.robot_bridge.cell.cells import wait_still

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(200)]
PATIENCE_S = 2.0
STEP_M = 0.05


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    with SimulatedCell("http", tmp_path_factory.mktemp("sim"), "127.0.91.6", 0.05) as sim:
        yield sim


@pytest.fixture(autouse=True)
def healed(sim, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    yield
    sim.inject("camera", on=False)


@pytest.fixture
def camera(sim):
    camera = ChildCamera(sim.path, load_cell_file(sim.path), "main")
    camera.start()
    yield camera
    camera.stop()


def kill(process_id, number=signal.SIGKILL):
    os.kill(process_id, number)
    if number != signal.SIGSTOP:
        assert until(lambda: os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOHANG | os.WNOWAIT), 5.0)


def picture(camera):
    return camera.latest(PATIENCE_S, time.monotonic_ns())


def test_an_unplugged_camera_works_again_as_soon_as_it_is_plugged_in(sim, camera):
    picture(camera)
    sim.inject("camera", what="close")
    for _ in range(2 * REOPENINGS_AN_HOUR):
        with pytest.raises(StaleFrame):
            picture(camera)
    sim.inject("camera", on=False)
    assert picture(camera).rgb.any()


def test_a_camera_that_fails_again_and_again_waits_for_a_person(camera):
    for _ in range(REOPENINGS_AN_HOUR):
        kill(camera.process_id)
        picture(camera)
    kill(camera.process_id)
    for _ in range(2):
        with pytest.raises(StaleFrame, match="look at it"):
            picture(camera)
    camera.acknowledge()
    picture(camera)


def test_a_frozen_process_is_killed_and_another_one_started(camera):
    frozen = camera.process_id
    kill(frozen, signal.SIGSTOP)
    with pytest.raises(StaleFrame, match="no picture that is new enough"):
        picture(camera)
    picture(camera)
    assert camera.process_id != frozen
    assert not psutil.pid_exists(frozen)


def acting(cell, sim):
    """Starts a slow step across the bin; returns its thread and its result, once the tool moves."""
    results = []
    away = -1.0 if cell.robot.state().tool.y_m > 0 else 1.0
    thread = threading.Thread(target=lambda: results.append(cell.act(make_action((0.0, away * STEP_M, 0.0)))))
    thread.start()
    assert until(lambda: abs(sim.truth()["twist"][1]) > 0.02, 20.0, 0.002), results
    return thread, results


@pytest.mark.drill
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_the_arm_holds_and_the_next_episode_needs_no_hand(sim, number):
    with contextlib.closing(PhysicalCell(sim.path, 72, stop=lambda: True)) as cell:
        cell.start_episode(0)
        thread, results = acting(cell, sim)
        width_m = sim.truth()["width_m"]
        failed = cell.camera.process_id
        kill(failed, number)
        thread.join(40.0)
        stood = wait_still(sim)
        (result,) = results
        assert result.outcome is Outcome.ABORTED
        assert "camera" in result.metadata["abort"]
        assert stood["width_m"] == pytest.approx(width_m, abs=1e-3)
        assert cell.places.latched() is None
        cell.start_episode()
        assert cell.camera.process_id != failed
        assert cell.act(make_action((0.0, 0.0, -0.01))).outcome is None
        assert cell.places.latched() is None


@pytest.mark.drill
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_camera_that_failed_between_episodes_costs_none(sim, number):
    with contextlib.closing(PhysicalCell(sim.path, 72, stop=lambda: True)) as cell:
        kill(cell.camera.process_id, number)
        time.sleep(2.5)
        cell.start_episode(0)
        assert cell.act(make_action((0.0, 0.0, -0.01))).outcome is None


@pytest.mark.drill
def test_an_unplugged_camera_locks_the_cell_and_works_at_once_when_acknowledged(sim):
    stopping = threading.Event()
    with contextlib.closing(PhysicalCell(sim.path, 72, stop=stopping.is_set)) as cell:
        cell.start_episode(0)
        thread, results = acting(cell, sim)
        sim.inject("camera", what="close")
        thread.join(40.0)
        assert results[0].outcome is Outcome.ABORTED
        stood = wait_still(sim)
        beginning = threading.Thread(target=cell.start_episode)
        beginning.start()
        try:
            nothing = Latch("", "", 0.0)
            assert until(lambda: (cell.places.latched() or nothing).rule == "no_episode", 60.0)
            assert wait_still(sim)["tool"] == pytest.approx(stood["tool"], abs=2e-3), "without a camera nothing moves"
            sim.inject("camera", on=False)
            cell.places.latch_file.acknowledge("the test", "plugged in again")
            beginning.join(60.0)
            assert not beginning.is_alive()
        finally:
            stopping.set()
            beginning.join(30.0)
        assert cell.act(make_action((0.0, 0.0, -0.01))).outcome is None
