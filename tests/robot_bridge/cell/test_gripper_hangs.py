"""A gripper whose library does not come back: the arm's thread does, and the safety layer is told."""

import threading

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
        assert "does not come back" in bench.worker.gripper_fault
    finally:
        fingers.freed.set()
