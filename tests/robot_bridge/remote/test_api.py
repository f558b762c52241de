"""A stop, a hold or the end of a session that falls into the middle of a command's arrival: nothing moves after it."""

import threading
import time

import pytest

from robot_bridge.contracts import Pose
from robot_bridge.remote.api import ArmApi
from robot_bridge.remote.messages import write_pose
from tests.robot_bridge.remote.point_arm import DOWN, START, PointArm, PointGripper

pytestmark = pytest.mark.realtime
FAR = Pose((1.5, 0.0, 0.3), DOWN)
ASIDE_S = 0.5
"""Far longer than any thread is kept from what it may do."""


class Late(threading.Event):
    """An arm's server whose commands are held up between their admission and what follows, until this is set."""

    def __init__(self, api):
        super().__init__()
        self.admitted = threading.Event()
        admit = api._session.admit

        def and_wait(name, number):
            admit(name, number)
            self.admitted.set()
            self.wait(ASIDE_S)

        api._session.admit = and_wait


@pytest.fixture
def arm():
    arm = PointArm()
    yield arm
    arm.close()


@pytest.fixture
def api(arm):
    api = ArmApi(arm, PointGripper(0.03), watchdog_s=0.6, stop_decel_m_s2=2.0, max_speed_m_s=0.5)
    yield api
    api.close()


def move(api, session, number=1):
    message = {"pose": write_pose(FAR), "speed_m_s": 0.2, "accel_m_s2": 0.5, "deadline_s": 20.0}
    return api.commands["/v1/move"]({**message, "session": session, "number": number})


def servo(api, session):
    return api.commands["/v1/servo"](
        {"pose": write_pose(FAR), "valid_for_s": 0.5, "session": session, "number": 1},
    )


@pytest.mark.parametrize("command", [move, servo])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/stop", {"number": 2}),
        ("/v1/stop", {"session": "", "number": 0}),
        ("/v1/hold", {"number": 2}),
        ("/v1/release", {}),
    ],
)
def test_no_motion_begins_after_an_acknowledged_stop(api, arm, path, message, command):
    session = api.commands["/v1/session"]({})["session"]
    late = Late(api)
    commanding = threading.Thread(target=lambda: command(api, session))
    commanding.start()
    assert late.admitted.wait(5.0)
    api.commands[path]({"session": session, **message})
    late.set()
    stood = arm.state().pose.position_m
    commanding.join(5.0)
    time.sleep(0.2)
    assert arm.state().pose.position_m == pytest.approx(stood, abs=1e-6)
    assert arm.state().pose.position_m == pytest.approx(START.position_m, abs=0.02)


def test_no_motion_begins_after_the_watchdog_ended_the_session(api, arm):
    session = api.commands["/v1/session"]({})["session"]
    late = Late(api)
    late.wait = lambda _: time.sleep(0.9)  # the client has fallen silent before its command is handed over
    commanding = threading.Thread(target=lambda: move(api, session))
    commanding.start()
    commanding.join(5.0)
    time.sleep(0.3)
    stood = arm.state().pose.position_m
    time.sleep(0.2)
    assert arm.state().pose.position_m == stood
    assert stood == pytest.approx(START.position_m, abs=0.02)


def test_a_hold_ends_a_motion_and_the_next_command_moves_again(api, arm):
    session = api.commands["/v1/session"]({})["session"]
    move(api, session)
    while arm.state().pose.position_m == START.position_m:
        time.sleep(0.01)
    api.commands["/v1/hold"]({"session": session, "number": 2})
    stood = arm.state().pose.position_m
    time.sleep(0.1)
    assert arm.state().pose.position_m == pytest.approx(stood, abs=1e-3)
    assert api.reads["/v1/state"]()["result"]["outcome"] == "stopped"
    move(api, session, 3)
    time.sleep(0.1)
    assert arm.state().pose.position_m[0] > stood[0] + 0.005
