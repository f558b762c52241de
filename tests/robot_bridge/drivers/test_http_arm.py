"""The HTTP driver against a real server process: motions, stops, and what happens when either side dies."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode, Capability, MotionOutcome, ObjectSensed, Pose
from robot_bridge.drivers.http_arm import DRIVER, GRIPPER_DRIVER, HttpArm
from robot_bridge.drivers.http_gripper import HttpGripperOptions
from robot_bridge.drivers.http_stop import HttpStopChannel
from robot_bridge.remote import ArmServer, LinkOptions, ServerOptions
from robot_bridge.remote.messages import write_pose
from tests.robot_bridge.remote.point_arm import DOWN, START, PointArm
from tests.robot_bridge.remote.relay import Relay

pytestmark = pytest.mark.realtime


def place(x, y, z):
    return Pose((x, y, z), DOWN)


FAR = {"pose": write_pose(place(5.0, 0.0, 0.3)), "speed_m_s": 0.05, "accel_m_s2": 0.5, "deadline_s": 60.0}


def stands(channel, seconds=0.4):
    """Whether the arm stays within a micrometre, with a controller clock that goes on."""
    called_ns, end_s = time.monotonic_ns(), time.monotonic() + 10
    while channel.state().t_host_ns < called_ns:  # what it had read before says nothing
        assert time.monotonic() < end_s
        time.sleep(0.005)
    first = channel.state()
    time.sleep(seconds)
    last = channel.state()
    assert last.t_controller_s > first.t_controller_s
    return float(np.linalg.norm(np.subtract(last.pose.position_m, first.pose.position_m))) < 1e-6


@pytest.fixture
def channel(request):
    """A stop channel on the server of the test, closed at the end."""
    made = []

    def open_channel(served):
        made.append(HttpStopChannel(served.options()))
        made[-1].connect(10.0)
        return made[-1]

    yield open_channel
    for one in made:
        one.close()


@pytest.fixture
def served(shared):
    """The server of most tests."""
    return shared


@pytest.fixture
def moving(served, connect, channel):
    """An arm in the middle of a slow, long motion: server, arm, stop channel, thread and where its result goes."""
    arm, watcher, results = connect(served), channel(served), []
    assert arm.move_to(START, 0.4, 0.5, 20.0).outcome is MotionOutcome.REACHED
    thread = threading.Thread(
        target=lambda: results.append(arm.move_to(place(5.0, 0.0, 0.3), 0.05, 0.5, 60.0)), daemon=True
    )
    thread.start()
    end_s = time.monotonic() + 10
    while watcher.state().pose.position_m[0] < 0.505:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    return served, arm, watcher, thread, results


def test_moves_servos_and_grips(served, connect):
    arm = connect(served)
    assert arm.capabilities == {
        Capability.CARTESIAN_MOVE,
        Capability.CARTESIAN_SERVO,
        Capability.WRENCH_MEASURED,
        Capability.CONTROLLER_WATCHDOG,
    }
    target = place(0.52, 0.01, 0.3)
    result = arm.move_to(target, 0.2, 0.5, 20.0)
    assert (result.outcome, result.pose) == (MotionOutcome.REACHED, target)
    assert arm.move_joints((0.0,), 0.1, 5.0).outcome is MotionOutcome.REJECTED
    assert arm.move_to(target, 0.9, 0.5, 5.0).outcome is MotionOutcome.REJECTED
    slow = arm.move_to(place(5.0, 0.0, 0.3), 0.01, 0.5, 0.3)
    assert slow.outcome is MotionOutcome.TIMEOUT

    before = arm.state().pose.position_m[1]
    for _ in range(20):
        assert arm.servo(place(0.52, 0.3, 0.3), 0.4).outcome is MotionOutcome.REACHED
    time.sleep(0.8)
    held = arm.state()
    assert held.mode is ArmMode.READY, "the arm holds when no target came for valid_for_s"
    assert before + 0.01 < held.pose.position_m[1] < 0.29

    arm.recover()
    arm.zero_wrench()
    arm.set_payload(1.0, (0.0, 0.0, 0.05))
    with pytest.raises(RobotError, match="too heavy"):
        arm.set_payload(50.0, (0.0, 0.0, 0.05))

    gripper = GRIPPER_DRIVER.open(HttpGripperOptions(), arm)
    gripper.connect(5.0)
    assert gripper.width_range_m == (0.0, 0.0)
    gripper.activate(5.0)
    assert gripper.width_range_m == (0.0, 0.08)
    assert gripper.capabilities == {Capability.GRIPPER_WIDTH, Capability.GRIPPER_OBJECT_FLAG}
    state = gripper.move(0.0, 0.05, 20.0, 5.0)
    assert (state.width_m, state.object_sensed, state.moving) == (0.03, ObjectSensed.YES, False)
    with pytest.raises(RobotError, match="jammed"):
        gripper.move(0.08, 0.05, 500.0, 5.0)
    assert gripper.move(0.08, 0.05, 20.0, 5.0).width_m == 0.08
    arm.close()
    arm.close()
    connect(served)  # the session was given back at once


def test_a_client_that_leaves_in_motion_leaves_nothing_for_the_next_one_to_wait_for(served, connect):
    for _ in range(10):
        arm = connect(served)
        result = arm.move_to(START, 0.4, 0.5, 20.0)
        assert result.outcome is MotionOutcome.REACHED, f"refused, or stopped by another's end: {result}"
        arm.command("/v1/move", FAR)
        arm.close()


@pytest.mark.parametrize("how", ["stop", "hold", "channel"])
def test_stops_from_another_thread_end_the_motion(moving, how):
    _, arm, watcher, thread, results = moving
    if how == "channel":
        assert watcher.stop()
    elif how == "hold":
        arm.hold()
    else:
        arm.stop(2.0)
    thread.join(10)
    assert results[0].outcome is MotionOutcome.STOPPED
    assert stands(watcher)
    assert arm.move_to(START, 0.2, 0.5, 20.0).outcome is MotionOutcome.REACHED


def test_a_killed_client_leaves_the_arm_standing(served, channel, connect):
    arm = connect(served)
    assert arm.move_to(START, 0.4, 0.5, 20.0).outcome is MotionOutcome.REACHED
    arm.close()
    watcher = channel(served)
    url = f"http://127.0.0.1:{served.port}"
    command = [sys.executable, "-m", "tests.robot_bridge.remote.drive", url, str(served.token_file)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout.readline() == "moving\n"
        end_s = time.monotonic() + 10
        while watcher.state().pose.position_m[0] < 0.505:
            assert time.monotonic() < end_s
            time.sleep(0.01)
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
    killed_x_m = watcher.state().pose.position_m[0]
    time.sleep(1.6)  # the watchdog of the server is at 1.0 s
    stopped_x_m = watcher.state().pose.position_m[0]
    assert stands(watcher)
    assert killed_x_m < stopped_x_m < killed_x_m + 0.05 * 1.6
    arm = connect(served)  # the dead client's session is free again, and nothing moved by itself
    assert arm.state().mode is ArmMode.READY


class Noted(PointArm):
    """It writes down how it was told to brake, and may take longer than its deadline."""

    def __init__(self):
        super().__init__()
        self.braked, self.late_s = [], 0.0

    def stop(self, decel_m_s2):
        self.braked.append(decel_m_s2)
        super().stop(decel_m_s2)

    def move_to(self, target, speed_m_s, accel_m_s2, deadline_s):
        return super().move_to(target, speed_m_s, accel_m_s2, deadline_s + self.late_s)


@pytest.fixture
def noted(token_file):
    """An arm that notes its stops, and a relay to its server."""
    arm = Noted()
    options = ServerOptions(port=0, token_file=token_file, stop_decel_m_s2=1.5)
    with ArmServer(arm, None, options) as served, Relay(served.port) as relay:
        yield arm, relay, LinkOptions(f"http://127.0.0.1:{relay.port}", token_file, link_timeout_s=2.0)


def test_stops_that_nobody_asked_for_brake_as_any_stop_does(noted):
    arm, relay, options = noted
    with contextlib.closing(HttpArm(options)) as client:
        client.connect(5.0)
        arm.late_s = 60.0
        assert client.move_to(place(5.0, 0.0, 0.3), 0.05, 0.5, 0.3).outcome is MotionOutcome.TIMEOUT
        assert 2.0 in arm.braked
        while client.state().mode is not ArmMode.READY:
            time.sleep(0.01)
        arm.braked.clear()
        relay.mute(0)  # commands arrive, their answers do not
        assert client.move_to(place(5.0, 0.0, 0.3), 0.05, 0.5, 5.0).outcome is MotionOutcome.LINK_LOST
        assert 2.0 in arm.braked
    assert max(arm.braked) == 2.0


@pytest.mark.parametrize(("asked", "braked"), [(1.0, 1.0), (1e3, 10.0), (math.inf, 10.0), (0.0, 0.01)])
def test_a_stop_brakes_within_bounds(noted, asked, braked):
    arm, _, options = noted
    with contextlib.closing(HttpArm(options)) as client:
        client.connect(5.0)
        client.stop(asked)
        assert arm.braked == [braked]
        assert client.move_to(START, 0.4, 0.5, 5.0).outcome is MotionOutcome.REACHED, "a stop loses no link"


class TestASilentServer:
    @pytest.fixture
    def served(self, serve):
        return serve()

    def test_is_a_lost_link_and_nothing_goes_on_afterwards(self, moving):
        served, arm, watcher, thread, results = moving
        os.kill(served.process.pid, signal.SIGSTOP)
        silent_s = time.monotonic()
        thread.join(20)
        took_s = time.monotonic() - silent_s
        assert results[0].outcome is MotionOutcome.LINK_LOST
        assert took_s < 8.0
        age_s = (time.monotonic_ns() - arm.state().t_host_ns) / 1e9
        assert age_s > 1.5, "the old report must look old"
        assert not watcher.stop()
        os.kill(served.process.pid, signal.SIGCONT)
        end_s = time.monotonic() + 10
        while not watcher.stop():
            assert time.monotonic() < end_s
        assert stands(watcher)
        assert arm.move_to(START, 0.2, 0.5, 5.0).outcome is MotionOutcome.LINK_LOST
        with pytest.raises(RobotError, match="Start a new process"):
            arm.recover()
        assert stands(watcher)


class TestAServerThatIsKilled:
    @pytest.fixture
    def served(self, serve):
        return serve()

    def test_is_a_lost_link(self, moving):
        served, arm, watcher, thread, results = moving
        served.process.kill()
        thread.join(20)
        assert results[0].outcome is MotionOutcome.LINK_LOST
        arm.stop(2.0)
        assert not watcher.stop()


def test_the_driver_object_names_its_parts():
    assert (DRIVER.open, DRIVER.open_stop_channel) == (HttpArm, HttpStopChannel)
    assert DRIVER.extra == ""


def test_a_gripper_behind_another_driver_is_refused():
    with pytest.raises(RobotError, match="behind the arm's own server"):
        GRIPPER_DRIVER.open(HttpGripperOptions(), object())
