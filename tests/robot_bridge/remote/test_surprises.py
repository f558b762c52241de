"""Whatever an arm's or a gripper's own code raises: the watch goes on, and the arm is stopped as soon as it can be."""

import contextlib
import logging
import socket
import subprocess
import sys
import time

import pytest

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode, MotionOutcome, Pose
from robot_bridge.drivers.http_arm import HttpArm
from robot_bridge.remote import ArmServer, Endpoint, Link, LinkOptions, Refused, ServerOptions
from robot_bridge.remote.api import ArmApi
from robot_bridge.remote.messages import write_pose
from tests.robot_bridge.remote.point_arm import DOWN, START, PointArm, PointGripper

pytestmark = pytest.mark.realtime
FAR = Pose((5.0, 0.0, 0.3), DOWN)


class Surprising(PointArm):
    """Its vendor's library raises what it likes: in every hold, and in as many stops as ``bad_stops`` says."""

    bad_stops = 0

    def hold(self):
        raise ValueError("a vendor's own error")

    def stop(self, decel_m_s2):
        if self.bad_stops > 0:
            self.bad_stops -= 1
            raise OSError("a vendor's broken socket")
        super().stop(decel_m_s2)


@pytest.fixture
def arm():
    arm = Surprising()
    yield arm
    arm.close()


@pytest.fixture
def api(arm):
    api = ArmApi(arm, PointGripper(0.03), watchdog_s=0.3, stop_decel_m_s2=2.0, max_speed_m_s=0.5)
    yield api
    api.close()


def set_off(api, command="move"):
    """Has a new client set off; it says no more."""
    session = api.commands["/v1/session"]({})["session"]
    how = {"speed_m_s": 0.05, "accel_m_s2": 0.5, "deadline_s": 60.0, "valid_for_s": 0.3}
    api.commands[f"/v1/{command}"]({"pose": write_pose(FAR), "session": session, "number": 1, **how})
    return session


def wait_for(arm, mode, seconds=5.0):
    end_s = time.monotonic() + seconds
    while arm.state().mode is not mode:
        assert time.monotonic() < end_s, f"not {mode} within {seconds} s"
        time.sleep(0.002)


def test_an_arm_that_does_not_hold_is_stopped_and_the_watch_goes_on(api, arm):
    for _ in range(2):
        session = set_off(api)
        wait_for(arm, ArmMode.MOVING)
        with pytest.raises(ValueError, match="vendor's own"):
            api.commands["/v1/hold"]({"session": session, "number": 2})
        wait_for(arm, ArmMode.READY, 0.2)
        time.sleep(0.5)  # the client is silent: its session ends, which the next one needs


@pytest.mark.parametrize("command", ["move", "servo"])
def test_a_stop_that_the_arm_does_not_take_is_tried_again(api, arm, command, caplog):
    arm.servo = lambda target, valid_for_s: PointArm.servo(arm, target, 60.0)  # only a stop ends it
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            set_off(api, command)
            wait_for(arm, ArmMode.MOVING)
            arm.bad_stops = 10
            wait_for(arm, ArmMode.READY, 1.5)
            assert arm.bad_stops == 0
    told = [record for record in caplog.records if record.exc_info]
    assert 1 <= len(told) <= 4, "each cause is told of, and not with every try"


def test_no_client_is_let_in_to_an_arm_that_takes_no_stop(api, arm, monkeypatch):
    monkeypatch.setattr("robot_bridge.remote.api.SETTLE_S", 0.5)
    set_off(api, "servo")
    arm.bad_stops = 10**6
    time.sleep(0.6)
    with pytest.raises(RobotError, match="does not take the stop"):
        api.commands["/v1/session"]({})
    arm.bad_stops = 0
    assert api.commands["/v1/session"]({})["session"]


@pytest.mark.parametrize("client_ends", ["after a hold", "in motion"])
def test_a_dead_clients_arm_stands_and_the_next_client_is_taken(arm, token_file, client_ends):
    with ArmServer(arm, None, ServerOptions(port=0, token_file=token_file)) as served:
        options = LinkOptions(f"http://127.0.0.1:{served.port}", token_file)
        command = [sys.executable, "-m", "tests.robot_bridge.remote.drive", options.url, str(token_file)]
        link = Link(Endpoint(options))
        for _ in range(2):
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout.readline() == "moving\n"
                wait_for(arm, ArmMode.MOVING)
                if client_ends == "after a hold":
                    with pytest.raises(Refused, match="500"):
                        link.post("/v1/hold", {"session": "", "number": 0}, 1.0)
                    wait_for(arm, ArmMode.READY, 0.3)
                else:
                    arm.bad_stops = 5
                client.kill()
            wait_for(arm, ArmMode.READY, 1.5)
            time.sleep(0.6)
        with contextlib.closing(HttpArm(options)) as after:
            after.connect(5.0)
            assert after.move_to(START, 0.4, 0.5, 20.0).outcome is MotionOutcome.REACHED
        link.close()


def test_a_server_ends_in_order_though_the_arm_takes_no_stop(token_file):
    arm, gripper, closed = Surprising(), PointGripper(0.03), []

    def close_badly():
        closed.append(gripper)
        raise OSError("the gripper is gone")

    gripper.close = close_badly
    arm.bad_stops = 10**6
    served = ArmServer(arm, gripper, ServerOptions(port=0, token_file=token_file))
    with pytest.raises(OSError, match="gripper is gone"):
        served.close()
    assert closed == [gripper]
    assert arm._closed.is_set()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port), timeout=5)


def test_a_grippers_surprises_end_no_thread(token_file):
    arm, gripper = PointArm(), PointGripper(0.03)
    report, word = gripper.state, {"deadline_s": 5.0, "width_m": 0.05, "speed_m_s": 0.1, "force_n": 10.0}
    with ArmServer(arm, gripper, ServerOptions(port=0, token_file=token_file, watchdog_s=5.0)) as served:
        link = Link(Endpoint(LinkOptions(f"http://127.0.0.1:{served.port}", token_file)))
        session = link.post("/v1/session", {}, 1.0)["session"]

        def broken():
            raise ValueError("a vendor's own error")

        gripper.state = broken
        time.sleep(0.2)
        with pytest.raises(Refused, match="a vendor's own error"):
            link.get("/v1/gripper", 1.0)
        gripper.state = report
        time.sleep(0.2)
        link.post("/v1/gripper/move", {"session": session, "number": 1, **word}, 1.0)
        end_s = time.monotonic() + 5.0
        while link.get("/v1/gripper", 1.0)["result"] is None:
            assert time.monotonic() < end_s
        arm.zero_wrench = lambda: "no result"
        link.post("/v1/zero_wrench", {"session": session, "number": 2}, 1.0)
        while link.get("/v1/state", 1.0)["result"] is None:
            assert time.monotonic() < end_s
        assert link.get("/v1/state", 1.0)["result"]["outcome"] == "fault"
        link.close()
