"""A gripper whose library does not come back: the arm's thread does, and the safety layer is told."""

import threading
from concurrent.futures import Future

import pytest

from robot_bridge.cell.ask import Ask
from sim.faults.cells import until
from tests.robot_bridge.cell.test_worker import Bench, Fingers


class Hanging(Fingers):
    """Its motion comes back when a test lets it, long after the time that it was given."""

    def __init__(self, bench):
        super().__init__(bench, 0, ())
        self.freed = threading.Event()

    def move(self, width_m, speed_m_s, force_n, deadline_s):
        self.freed.wait(20.0)
        return self.state()


def test_a_library_that_hangs_is_a_fault_and_keeps_nobody_waiting():
    bench = Bench()
    fingers = Hanging(bench)
    bench.worker = bench.worker_with(fingers)
    try:
        answer = bench.put({"id": 1, "do": "grip", "width": 0.0, "speed": 0.1, "force": 20.0, "deadline_s": 0.1})
        assert "does not come back" in answer["error"]
        assert "does not come back" in bench.worker.fingers.fault
    finally:
        fingers.freed.set()


def test_a_motion_that_ended_while_this_process_was_frozen_does_not_hang():
    fingers, ask, moving = Bench().worker.fingers, Ask({"deadline_s": 0.1}), Future()
    moving.set_result(None)
    fingers.require_in_time(ask, moving, began_s=-100.0)
    assert (fingers.fault, ask.told) == ("", None)


@pytest.fixture
def watched(monkeypatch):
    """A bench whose gripper is watched, with a short patience, and its fingers."""
    monkeypatch.setattr("robot_bridge.cell.fingers._SILENT_S", 0.3)
    bench = Bench()
    fingers = Hanging(bench)
    bench.worker = bench.worker_with(fingers)
    bench.worker.start(1.0)
    assert bench.worker.connected.wait(5.0)
    yield bench, fingers
    bench.worker.end(5.0)


def test_old_reports_are_no_reports(watched):
    bench, fingers = watched
    last = fingers.state()
    fingers.state = lambda: last  # as a server whose gripper hangs tells
    assert until(lambda: "no report of the gripper" in bench.worker.fingers.fault, 5.0)


def test_a_library_that_hangs_while_it_is_only_asked_is_a_fault_too(watched):
    bench, fingers = watched
    assert bench.worker.fingers.fault == ""
    tell = fingers.state
    fingers.state = lambda: fingers.freed.wait(20.0) and tell()
    assert until(lambda: "no report of the gripper" in bench.worker.fingers.fault, 5.0)
    fingers.freed.set()
    assert until(lambda: not bench.worker.fingers.fault, 5.0)
