"""What the arm's thread does after a contact, with an arm that ends its motions as a test says."""

import math
import threading
import time

import pytest

from qtopt.errors import RobotError
from robot_bridge.cell.worker import Worker
from robot_bridge.contracts import (
    ArmMode,
    ArmState,
    GripperState,
    MotionOutcome,
    MotionResult,
    ObjectSensed,
    Reaction,
    Verdict,
)
from robot_bridge.displacement import to_pose
from robot_bridge.robot import ToolPose
from robot_bridge.safety.commands import straight_up
from robot_bridge.safety.facts import CellFacts, Heartbeat, Phase
from robot_bridge.safety.monitor import CellSafetyMonitor
from robot_bridge.safety.rules import FROM_ASIDE, TOUCHED
from tests.robot_bridge.safety.cells import STILL, cell, command

STANDS = ToolPose(0.57, 0.0, 0.1, 0.0)
ASKED = Verdict(Reaction.STOP, "asked", "the collector asked to stop")
TOUCH = Verdict(Reaction.HOLD, TOUCHED, "16 N bear the tool")
PRESS = Verdict(Reaction.STOP, "contact_retract", "31 N press on the tool")


class Fingers:
    """A gripper whose fingers stand when the bench has moved so often, or no more; loads change as it moves."""

    capabilities, width_range_m = frozenset(), (0.0, 0.03)

    def __init__(self, bench, moves, newtons):
        self.bench, self.most, self.newtons = bench, moves, newtons

    def connect(self, deadline_s):
        pass

    def close(self):
        pass

    def state(self):
        return GripperState(time.monotonic_ns(), 0.03, False, ObjectSensed.UNKNOWN)

    def move(self, width_m, speed_m_s, force_n, deadline_s):
        self.bench.loads, moves, looks = list(self.newtons[1:]), 0, 0
        self.bench.press(self.newtons[0])
        while moves < self.most and looks < 300:  # counted: a clock goes on while a process is frozen
            looks = looks + 1 if len(self.bench.moves) == moves else 0
            moves = len(self.bench.moves)
            time.sleep(0.001)
        return self.state()


class Bench:
    """A worker, its monitor, and an arm; ``ends`` are what happens in its motions, in turn."""

    def __init__(self, *ends):
        self.pose, self.force_n, self.moves = to_pose(STANDS), 0.0, []
        self.ends, self.zeroes = list(ends), True
        self.mode, self.barred = ArmMode.READY, None
        self.ways, self.answers, self.loads = [], [], []
        self.monitor = CellSafetyMonitor(cell(), episodes_done=20)
        self.monitor.observe(self.state(), time.monotonic_ns())
        assert self.monitor.enter(Phase.EPISODE, time.monotonic_ns()).reaction is Reaction.ALLOW
        self.worker = self.worker_with(None)

    def worker_with(self, fingers):
        return Worker(
            self,
            fingers,
            self.monitor,
            threading.Lock(),
            lambda: self.barred,
            self.answers.append,
            lambda _: None,
            lambda _: None,
            self.rise,
        )

    def connect(self, deadline_s):
        pass

    def close(self):
        pass

    def state(self):
        now_ns = time.monotonic_ns()
        for source in Heartbeat:
            self.monitor.beat(source, now_ns)
        wrench = (0.0, 0.0, self.force_n, 0.0, 0.0, 0.0)
        return ArmState(now_ns, now_ns * 1e-9, self.pose, STILL, wrench, (), self.mode, codes={})

    def press(self, force_n):
        """Presses from now on, as a tick of the arm's process sees it."""
        self.force_n = force_n
        self.monitor.observe(self.state(), time.monotonic_ns())

    def rise(self, rule, under_way):
        self.ways.append(under_way)
        return straight_up(self.state(), 0.004 if rule in (TOUCHED, FROM_ASIDE) else 0.03, 0.05)

    def move_to(self, target, speed_m_s, accel_m_s2, deadline_s):
        self.moves.append(round(target.position_m[2] - self.pose.position_m[2], 4))
        end = self.ends.pop(0) if self.ends else None
        if end is None:
            self.pose = target
            if self.loads:
                self.press(self.loads.pop(0))
            return MotionResult(MotionOutcome.REACHED, "", target)
        end(self)
        return MotionResult(MotionOutcome.STOPPED, "", self.pose)

    def grip(self):
        return self.put({"id": 1, "do": "grip", "width": 0.0, "speed": 0.1, "force": 20.0, "deadline_s": 20.0})

    def zero_wrench(self):
        if self.zeroes:
            self.force_n = 0.0

    def zero(self):
        return self.put({"id": 1, "do": "zero_wrench"})

    def may_move(self):
        return self.put({"id": 1, "do": "may_move"})

    def put(self, message):
        self.worker.start(1.0)
        assert self.worker.connected.wait(5.0)
        self.worker.put(message)
        self.worker.end(30.0)
        (answer,) = self.answers
        return answer

    def ask(self):
        wanted = command(z_m=0.08, speed_m_s=0.05)
        numbers = [*wanted.target.position_m, *wanted.target.quaternion_xyzw]
        message = {"id": 1, "do": "move", "target": numbers, "speed": 0.05, "accel": 0.5, "yaw_rate": 0.5}
        answer = self.put({**message, "deadline_s": 1.0})
        return answer["outcome"], answer["rule"]


def ended_by(verdict, told=None, force_n=0.0):
    """Returns an end of a motion as a tick of the arm's process brings it about."""

    def end(bench):
        bench.worker.current.ended_by, bench.worker.current.told = verdict, told
        bench.press(force_n)

    return end


def test_what_is_touched_is_left_by_four_millimetres():
    bench = Bench(ended_by(TOUCH))
    assert bench.ask() == (MotionOutcome.STOPPED, TOUCHED)
    assert bench.moves == [-0.02, 0.004]


def test_only_a_tool_that_was_on_its_way_goes_back_along_it():
    bench = Bench(ended_by(PRESS), ended_by(PRESS), ended_by(PRESS))
    bench.ask()
    assert bench.ways == [True, True, False]  # the first way out ended early, and was tried once more

    standing = Bench()
    standing.press(31.0)
    standing.force_n = 0.0
    standing.ask()
    assert standing.ways == [False]


def test_what_pressed_from_aside_is_left_as_well():
    bench = Bench(ended_by(Verdict(Reaction.HOLD, FROM_ASIDE, "25 N press on the tool from aside")))
    assert bench.ask() == (MotionOutcome.STOPPED, FROM_ASIDE)
    assert bench.moves == [-0.02, 0.004]


def test_a_late_stop_of_the_same_touch_does_not_keep_the_tool_there():
    bench = Bench(ended_by(TOUCH), ended_by(TOUCH))
    assert bench.ask() == (MotionOutcome.STOPPED, TOUCHED)
    assert bench.moves == [-0.02, 0.004, 0.004]


def test_a_press_that_begins_while_the_tool_leaves_what_it_touched_is_led_out_of():
    bench = Bench(ended_by(TOUCH), ended_by(PRESS))
    assert bench.ask() == (MotionOutcome.CONTACT, PRESS.rule)
    assert bench.moves == [-0.02, 0.004, 0.03]
    assert bench.monitor.phase is Phase.EPISODE


def test_who_asks_for_a_stop_while_the_tool_leaves_what_it_touched_is_heard():
    bench = Bench(ended_by(TOUCH), ended_by(ASKED, told=ASKED))
    assert bench.ask() == (MotionOutcome.STOPPED, "asked")
    assert bench.moves == [-0.02, 0.004]


@pytest.mark.parametrize("verdict", [TOUCH, PRESS])
def test_who_asked_for_a_stop_before_the_way_out_began_is_heard(verdict):
    bench = Bench(ended_by(verdict, told=ASKED))
    assert bench.ask()[0] is not MotionOutcome.CONTACT
    assert bench.moves == [-0.02]


def test_a_passing_hold_on_the_way_out_does_not_hide_what_was_touched():
    bench = Bench(ended_by(TOUCH))
    end = bench.ends.pop()

    def and_pictures_stop(_):
        end(bench)
        bench.monitor.note(CellFacts(camera_age_s=0.6, disk_free=1.0))

    bench.ends.append(and_pictures_stop)
    assert bench.ask() == (MotionOutcome.STOPPED, TOUCHED)
    assert bench.moves == [-0.02]


def test_whether_anything_may_move_is_asked_without_a_motion():
    assert Bench().may_move() == {"id": 1}
    held = Bench()
    held.monitor.note(CellFacts(camera_age_s=0.6, disk_free=1.0))
    answer = held.may_move()
    assert (answer["reaction"], answer["rule"], held.moves) == ("hold", "camera_age", [])
    barred = Bench()
    barred.barred = Verdict(Reaction.LATCH, "mode_lost", "as the safety process sees it")
    answer = barred.may_move()
    assert (answer["reaction"], answer["rule"], barred.moves) == ("latch", "mode_lost", [])


def test_an_episode_does_not_go_on_while_something_still_presses():
    bench = Bench(ended_by(PRESS, force_n=45.0))
    assert bench.ask() == (MotionOutcome.STOPPED, PRESS.rule)
    assert bench.moves == [-0.02, 0.03, 0.03, 0.03]
    assert bench.monitor.phase is Phase.RETRACT
    assert math.isclose(bench.pose.position_m[2], 0.19)
    refused = bench.monitor.enter(Phase.TRANSIT, time.monotonic_ns())
    assert (refused.reaction, refused.rule) == (Reaction.STOP, PRESS.rule)


@pytest.mark.parametrize(
    ("zeroes", "force_n", "said"), [(True, 22.0, ""), (False, 22.0, "reports 22 N"), (True, 31.0, "31 N more than at")]
)
def test_a_force_that_was_zeroed_is_looked_at(zeroes, force_n, said):
    bench = Bench()
    bench.monitor.was_zeroed(STILL[:3], STILL[:3])  # the first time
    bench.zeroes, bench.force_n = zeroes, force_n
    assert (said or "nothing") in bench.zero().get("error", "nothing")


def test_the_arm_yields_while_what_the_fingers_close_on_bears_it():
    bench = Bench()
    bench.worker = bench.worker_with(Fingers(bench, 3, (16.0, 15.5, 14.0)))
    assert bench.grip()["yields"] == 2
    assert bench.moves == [0.004, 0.004]


def test_fingers_that_move_while_the_arm_says_nothing_are_waited_for_and_looked_at():
    class SlowFingers(Fingers):
        def move(self, width_m, speed_m_s, force_n, deadline_s):
            self.bench.press(16.0)
            time.sleep(0.5)
            return self.state()

    bench = Bench()
    bench.worker = bench.worker_with(SlowFingers(bench, 0, ()))
    silent_ns = []

    def silent():
        silent_ns.append(time.monotonic_ns())
        raise RobotError("no report")

    bench.ends = [lambda _: setattr(bench, "state", silent)]
    assert bench.grip()["error"] == "no report"
    assert bench.worker.fingers.state.t_host_ns > silent_ns[-1]


def test_the_arm_yields_no_more_than_four_centimetres():
    bench = Bench()
    bench.worker = bench.worker_with(Fingers(bench, 100, (16.0,) * 100))
    assert "error" not in bench.grip()
    assert bench.moves == [0.004] * 10


class PressingFingers(Fingers):
    """Press as they close, and with ``newtons`` when they are open again."""

    def __init__(self, bench, newtons):
        super().__init__(bench, 0, ())
        self.after_n, self.widths = newtons, []

    def move(self, width_m, speed_m_s, force_n, deadline_s):
        self.widths.append(width_m)
        ended_by(PRESS, force_n=31.0 if width_m == 0.0 else self.after_n)(self.bench)
        return self.state()


@pytest.mark.parametrize(("after_n", "moves"), [(5.0, []), (32.0, [0.03])])
def test_fingers_that_press_too_hard_go_back_and_the_tool_is_led_out_only_where_that_is_not_enough(after_n, moves):
    bench = Bench(lambda bench: bench.press(0.0))
    fingers = PressingFingers(bench, after_n)
    bench.worker = bench.worker_with(fingers)
    assert bench.grip()["undone"]
    assert fingers.widths == [0.0, 0.03]
    assert bench.moves == moves * 2  # the first one ends early
    assert bench.monitor.phase is Phase.EPISODE


def test_the_tool_is_led_out_where_the_fingers_fail_to_go_back():
    class Failing(PressingFingers):
        def move(self, width_m, speed_m_s, force_n, deadline_s):
            if width_m:
                raise RobotError("the gripper does not answer")
            return super().move(width_m, speed_m_s, force_n, deadline_s)

    bench = Bench(lambda bench: bench.press(0.0))
    bench.worker = bench.worker_with(Failing(bench, 32.0))
    assert "undone" not in bench.grip()
    assert bench.moves == [0.03, 0.03]


def test_fingers_do_not_go_back_while_the_controller_stands_in_a_stop_of_its_own():
    class Stopping(PressingFingers):
        def move(self, width_m, speed_m_s, force_n, deadline_s):
            self.bench.mode = ArmMode.PROTECTIVE_STOP
            return super().move(width_m, speed_m_s, force_n, deadline_s)

    bench = Bench()
    fingers = Stopping(bench, 0.0)
    bench.worker = bench.worker_with(fingers)
    assert "undone" not in bench.grip()
    assert fingers.widths == [0.0]


@pytest.mark.parametrize(
    "stop", [Verdict(Reaction.LATCH, "estop", "pressed"), Verdict(Reaction.STOP, "gripper", "silent")]
)
def test_fingers_do_not_set_off_after_a_stop_that_came_while_the_gripper_was_asked_something_else(stop):
    bench = Bench()
    fingers = PressingFingers(bench, 0.0)
    bench.worker = bench.worker_with(fingers)

    class Waiting:
        def __enter__(self):
            if stop.reaction is Reaction.LATCH:
                bench.barred = stop
            else:
                bench.worker.current.ended_by = stop

        def __exit__(self, *_):
            pass

        def acquire(self, timeout):
            return False

    bench.worker.fingers._using = Waiting()
    assert stop.rule in bench.grip()["error"]
    assert fingers.widths == []


def test_a_gripper_whose_library_fails_in_its_own_way_has_a_fault():
    bench = Bench()
    fingers = PressingFingers(bench, 0.0)
    bench.worker = bench.worker_with(fingers)
    bench.worker.start(1.0)
    assert bench.worker.connected.wait(5.0)
    fingers.state = lambda: {}["position"]
    until = time.monotonic() + 5.0
    while not bench.worker.fingers.fault and time.monotonic() < until:
        time.sleep(0.01)
    bench.worker.end(5.0)
    assert bench.worker.fingers.fault == "KeyError: 'position'"


def test_fingers_stay_where_they_pressed_outside_an_episode():
    bench = Bench()
    assert bench.monitor.enter(Phase.TRANSIT, time.monotonic_ns()).reaction is Reaction.ALLOW
    fingers = PressingFingers(bench, 0.0)
    bench.worker = bench.worker_with(fingers)
    assert bench.grip()["rule"] == PRESS.rule
    assert fingers.widths == [0.0]


def test_fingers_that_someone_stopped_stay_where_they_are():
    class Stopped(PressingFingers):
        def move(self, width_m, speed_m_s, force_n, deadline_s):
            state = super().move(width_m, speed_m_s, force_n, deadline_s)
            self.bench.worker.current.told = ASKED
            return state

    bench = Bench()
    fingers = Stopped(bench, 0.0)
    bench.worker = bench.worker_with(fingers)
    assert "undone" not in bench.grip()
    assert fingers.widths == [0.0]
    assert bench.moves == []
