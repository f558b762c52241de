"""UrArm through the real ``ur_rtde`` against a controller of another process, with physics behind it.

The driver lives in a child process, as in a cell: ``ur_rtde`` may crash, and its constructor holds the interpreter's
lock. The child takes lines of JSON and answers each; the controller's fault port tells what is true of the plant.
"""

import contextlib
import itertools
import os
import signal
import sys
import time
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest

pytest.importorskip("rtde_control", reason="needs ur_rtde: pip install qtopt[ur]")

from qtopt.errors import NotReady, RobotError
from robot_bridge.contracts import ArmMode
from robot_bridge.drivers.ur import DRIVER
from tests.robot_bridge.drivers.ur_server import (
    Controller,
    Keeper,
    at_dashboard,
    at_rest,
    child_of,
    distance,
    wait_for,
)

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(100)]


@pytest.fixture(scope="module")
def controller():
    controller = Controller("127.0.5.20")
    yield controller
    controller.close()


@pytest.fixture(scope="module")
def keeper(controller):
    keeper = Keeper(controller.host)
    yield keeper
    keeper.close()


@pytest.fixture(autouse=True)
def healed(controller):
    controller.heal()


@pytest.fixture
def arm(keeper):
    """A connected driver at the start pose."""
    return keeper.get()


@pytest.fixture
def channel(controller):
    channel = DRIVER.open_stop_channel(DRIVER.options(host=controller.host))
    channel.connect(5.0)
    yield channel
    channel.close()


@pytest.fixture
def library(monkeypatch):
    """In place of ``ur_rtde``: it takes everything."""
    library = Mock()
    module = SimpleNamespace(RTDEControlInterface=lambda host, frequency_hz: library)
    monkeypatch.setitem(sys.modules, "rtde_control", module)
    return library


def connections_to(controller):
    """Returns how many connections this process has to the dashboard and the stream."""
    peers = [each.raddr for each in psutil.Process().net_connections("tcp") if each.raddr]
    return sum(peer.ip == controller.host and peer.port in (29999, 30004) for peer in peers)


def test_a_straight_motion_ends_where_it_should(controller, arm):
    goal = [0.62, 0.05, 0.20, 0.6]
    answer = arm("move", goal, 0.25, 0.8, 10.0)
    assert answer["outcome"] == "reached", answer
    truth = controller("truth")
    assert distance(truth["tool"], goal) < 2e-3
    assert truth["tool"][3] == pytest.approx(0.6, abs=0.01)
    state = arm("state")
    assert distance(state["tool"], truth["tool"]) < 1e-3
    assert state["mode"] == "ready"
    assert truth["payload_kg"] == pytest.approx(1.1)


def test_a_slow_motion_turns_slowly_and_its_way_waits_for_its_turn(controller, arm):
    arm("move", [0.6, 0.0, 0.25, 0.0], 0.5, 2.0, 10.0)
    began = time.monotonic()
    number = arm.begin("move", [0.61, 0.0, 0.25, 0.4], 0.05, 0.8, 10.0)
    wait_for(lambda: controller("truth")["tool"][3] > 0.2)
    assert controller("truth")["tool"][0] == pytest.approx(0.605, abs=0.002)
    assert arm.end(number)["outcome"] == "reached"
    assert time.monotonic() - began > 0.4 / (4 * 0.05)  # 4 rad for each metre of its speed


def test_a_stop_from_another_thread_ends_a_motion_within_its_distance(controller, arm):
    number = arm.begin("move", [0.6, 0.0, 0.05, 0.0], 0.2, 1.0, 10.0)
    wait_for(lambda: controller("truth")["twist"][2] < -0.18)
    before = controller("truth")["tool"]
    asked = time.monotonic()
    arm("stop", 2.0)
    wait_for(lambda: at_rest(controller))
    took_s = time.monotonic() - asked
    answer = arm.end(number)
    assert answer["outcome"] == "stopped", answer
    after = controller("truth")["tool"]
    # 0.2^2 / (2 * 2) = 10 mm of braking; the rest is the way of the command: at most 0.3 s of a busy machine.
    assert 0.0 < before[2] - after[2] < 0.010 + 0.002 + 0.2 * 0.3
    assert took_s < 1.0
    assert arm("move", [0.6, 0.0, 0.25, 0.0], 0.5, 2.0, 10.0)["outcome"] == "reached"


def test_a_joint_motion_ends_at_its_angles(arm):
    joints = arm("state")["joints"]
    joints[0] += 0.15
    answer = arm("joints", joints, 0.5, 10.0)
    assert answer["outcome"] == "reached", answer
    assert arm("state")["joints"] == pytest.approx(joints, abs=0.02)


def test_servo_follows_and_holds_when_targets_run_dry(controller, arm):
    for step in range(20):
        assert arm("servo", [0.6, 0.003 * step, 0.25, 0.0], 1.5)["outcome"] == "reached"
        time.sleep(0.02)
    wait_for(lambda: controller("truth")["tool"][1] == pytest.approx(0.057, abs=0.005))
    assert arm("servo", [0.6, -0.18, 0.25, 0.0], 0.3)["outcome"] == "reached"
    wait_for(lambda: controller("truth")["twist"][1] < -0.02)
    wait_for(lambda: at_rest(controller))
    assert controller("truth")["tool"][1] > -0.1
    assert arm("move", [0.6, 0.0, 0.25, 0.0], 0.5, 2.0, 10.0)["outcome"] == "reached"


def test_a_protective_stop_ends_a_motion_and_is_not_unlocked_before_its_time(controller, arm):
    number = arm.begin("move", [0.6, 0.0, 0.05, 0.0], 0.05, 1.0, 20.0)
    wait_for(lambda: controller("truth")["twist"][2] < -0.03)
    stopped = time.monotonic()
    controller("protective_stop")
    answer = arm.end(number)
    assert (answer["outcome"], "protective" in answer["reason"]) == ("fault", True), answer
    wait_for(lambda: at_rest(controller))
    assert arm("move", [0.6, 0.0, 0.25, 0.0], 0.2, 1.0, 5.0)["outcome"] == "rejected"
    assert "until 5s" in arm("recover")["error"]
    time.sleep(max(0.0, 5.1 - (time.monotonic() - stopped)))
    assert "error" not in arm("recover")
    assert at_rest(controller)
    assert arm("move", [0.6, 0.0, 0.25, 0.0], 0.2, 1.0, 10.0)["outcome"] == "reached"


def test_an_unlock_that_is_only_said_is_not_believed(controller, arm):
    controller("protective_stop")
    wait_for(lambda: arm("state")["mode"] == "protective_stop")
    controller("unlock_lies")
    time.sleep(5.1)
    assert "stays in protective stop" in arm("recover")["error"]
    assert arm("move", [0.6, 0.0, 0.25, 0.0], 0.2, 1.0, 5.0)["outcome"] == "rejected"
    controller("unlock_lies", on=False)
    assert "error" not in arm("recover")
    assert arm("move", [0.6, 0.0, 0.25, 0.0], 0.2, 1.0, 10.0)["outcome"] == "reached"


def test_an_emergency_stop_is_named_and_nothing_connects_until_it_is_released(controller, arm):
    controller("emergency_stop")
    wait_for(lambda: arm("state")["mode"] == "emergency_stop")
    answer = arm("move", [0.6, 0.0, 0.2, 0.0], 0.2, 1.0, 5.0)
    assert (answer["outcome"], "emergency_stop" in answer["reason"]) == ("rejected", True)
    assert "pendant" in arm("recover")["error"]
    with child_of(controller.host) as lines:
        assert "emergency_stop" in lines("connect", 30.0)["error"]
    controller("emergency_stop", on=False)
    at_dashboard(controller.host, "power on", "brake release")
    wait_for(lambda: arm("state")["mode"] == "ready")


@pytest.mark.parametrize(
    ("mode", "bits", "seen"),
    [(12, 1 << 10, ArmMode.SAFEGUARD_STOP), (11, 1, ArmMode.FAULT), (1, 1 << 9, ArmMode.FAULT)],
)
def test_a_stop_that_one_variable_alone_tells_of_is_one(controller, arm, channel, mode, bits, seen):
    controller("safety_told", mode=mode, bits=bits)
    wait_for(lambda: channel.state().mode is seen)
    wait_for(lambda: arm("state")["mode"] == seen)
    answer = arm("move", [0.6, 0.0, 0.2, 0.0], 0.2, 1.0, 5.0)
    assert (answer["outcome"], seen in answer["reason"]) == ("rejected", True), answer
    controller("safety_told", on=False)
    wait_for(lambda: arm("state")["mode"] == "ready")


def test_a_silent_stream_shows_in_the_age_and_the_controller_stops_by_itself(controller, arm, channel):
    with contextlib.closing(arm):  # a lost link is for good
        number = arm.begin("move", [0.6, 0.0, 0.05, 0.0], 0.05, 1.0, 20.0)
        wait_for(lambda: controller("truth")["twist"][2] < -0.03)
        wait_for(lambda: channel.state().mode is ArmMode.MOVING)
        controller("silent")
        time.sleep(0.4)
        assert time.monotonic_ns() - channel.state().t_host_ns > 0.3e9
        assert arm.end(number)["outcome"] == "link_lost"
        wait_for(lambda: at_rest(controller))
        assert "watchdog" in controller("truth")["log"][-1]
        assert controller("truth")["tool"][2] > 0.1


def test_a_frozen_clock_shows_in_the_reports(controller, channel):
    controller("frozen_clock")
    time.sleep(0.1)
    first = channel.state()
    time.sleep(0.1)
    second = channel.state()
    controller("frozen_clock", on=False)
    assert second.t_host_ns > first.t_host_ns
    assert second.t_controller_s == first.t_controller_s


def test_the_stop_channel_stops_a_motion_without_the_driver(controller, arm, channel):
    number = arm.begin("move", [0.6, 0.0, 0.05, 0.0], 0.1, 1.0, 20.0)
    wait_for(lambda: controller("truth")["twist"][2] < -0.08)
    before = controller("truth")["tool"][2]
    assert channel.stop()
    wait_for(lambda: at_rest(controller))
    assert before - controller("truth")["tool"][2] < 0.1 * 0.3
    assert arm.end(number)["outcome"] == "fault"
    assert not arm("state")["program"]


def test_the_stop_channel_knows_when_nobody_would_listen_to_it(controller, channel):
    assert channel.state().mode.can_move
    controller("remote_control", on=False)
    try:
        wait_for(lambda: channel.state().mode is ArmMode.MANUAL)
        assert channel.state().codes["control"] == "local"
        assert not channel.stop()
    finally:
        controller("remote_control")
    wait_for(lambda: channel.state().mode.can_move)


def test_a_killed_driver_is_a_stopped_arm(controller, arm):
    with contextlib.closing(arm):
        arm.begin("move", [0.6, 0.0, 0.05, 0.0], 0.05, 1.0, 20.0)
        wait_for(lambda: controller("truth")["twist"][2] < -0.03)
        os.kill(arm.process.pid, signal.SIGSTOP)
        wait_for(lambda: at_rest(controller))
        assert controller("truth")["tool"][2] > 0.1
        assert "watchdog" in controller("truth")["log"][-1]


def test_dropped_connections_end_the_driver_and_nobody_else(controller, keeper, arm):
    # The library may crash now. What answers until then says that the arm did not get there.
    answer = {"outcome": "link_lost"}
    with contextlib.closing(arm), contextlib.suppress(AssertionError, OSError):
        controller("drop_connections")
        answer = arm("move", [0.6, 0.0, 0.2, 0.0], 0.2, 1.0, 5.0)
    assert answer.get("outcome") in {"link_lost", "rejected", "fault"}, answer
    assert at_rest(controller)
    assert keeper.get() is not arm, "a new driver connects and moves"


def test_split_and_doubled_frames_change_nothing(controller, arm):
    controller("split_frames")
    controller("duplicate_frames")
    answer = arm("move", [0.6, 0.04, 0.2, 0.0], 0.25, 0.8, 20.0)
    controller("split_frames", on=False)
    controller("duplicate_frames", on=False)
    assert answer["outcome"] == "reached", answer
    assert distance(controller("truth")["tool"], [0.6, 0.04, 0.2]) < 2e-3


def test_not_a_number_and_a_jump_reach_whoever_judges(controller, channel):
    controller("nan")
    wait_for(lambda: not channel.state().is_finite())
    controller("nan", on=False)
    wait_for(lambda: channel.state().is_finite())
    before = channel.state().pose.position_m[2]
    controller("pose_jump", by_m=[0.0, 0.0, 0.08])
    wait_for(lambda: channel.state().pose.position_m[2] > before + 0.07)
    controller("pose_jump", on=False)


def test_the_slider_slows_the_arm_and_is_reported(controller, arm):
    controller("speed_slider", fraction=0.5)
    wait_for(lambda: arm("state")["scale"] == pytest.approx(0.5))
    number = arm.begin("move", [0.6, 0.0, 0.15, 0.0], 0.2, 2.0, 20.0)
    fastest = 0.0
    while not at_rest(controller) or fastest < 0.05:
        fastest = max(fastest, -controller("truth")["twist"][2])
    assert arm.end(number)["outcome"] == "reached"
    assert fastest == pytest.approx(0.1, abs=0.01)


def test_local_control_is_named(controller):
    controller("remote_control", on=False)
    with child_of(controller.host) as lines:
        answer = lines("connect", 30.0)
    controller("remote_control")
    assert "switch it to remote control" in answer["error"]


def test_a_register_in_use_is_named(controller):
    controller("in_use", names=["input_int_register_0"])
    with child_of(controller.host) as lines:
        answer = lines("connect", 30.0)
    controller("in_use", names=[])
    assert "could not take control" in answer["error"], answer


def test_a_variable_that_is_not_found_is_named_and_nothing_is_left_open(controller):
    controller("not_found", names=["actual_TCP_force"])
    for other in (DRIVER.open_stop_channel, DRIVER.open):
        with pytest.raises(RobotError, match="actual_TCP_force: NOT_FOUND"):
            other(DRIVER.options(host=controller.host)).connect(5.0)
        wait_for(lambda: connections_to(controller) == 0)


def test_an_arm_that_is_not_ready_is_left_without_a_connection(controller):
    controller("safeguard")
    with pytest.raises(NotReady, match="safeguard"):
        DRIVER.open(DRIVER.options(host=controller.host)).connect(5.0)
    wait_for(lambda: connections_to(controller) == 0)


def test_a_control_program_that_cannot_be_set_up_is_ended(controller, library):
    library.setPayload.return_value = False
    with pytest.raises(RobotError, match="did not take tool point, payload and watchdog"):
        DRIVER.open(DRIVER.options(host=controller.host)).connect(5.0)
    library.stopScript.assert_called_once()
    library.disconnect.assert_called_once()
    wait_for(lambda: connections_to(controller) == 0)


def test_the_watchdog_is_fed_on_after_the_library_has_failed_once(controller, library):
    library.kickWatchdog.side_effect = itertools.chain([RuntimeError("not connected")], itertools.repeat(True))
    with contextlib.closing(DRIVER.open(DRIVER.options(host=controller.host))) as arm:
        arm.connect(5.0)
        wait_for(lambda: library.kickWatchdog.call_count > 2)
