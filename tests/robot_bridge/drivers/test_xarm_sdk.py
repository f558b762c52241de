"""The simulated controller under the vendor's library alone, with calls that our driver does not make."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from qtopt.errors import RobotError
from robot_bridge.drivers.xarm import XArm
from robot_bridge.drivers.xarm_sdk import keep_default_timeout
from tests.robot_bridge.drivers.xarm_server import CONTROL_PORT, LIBRARY_WARNS, ROOT, Server, running, wait_for

pytestmark = [pytest.mark.realtime, LIBRARY_WARNS]

STREAM = """
import sys, time
from robot_bridge.drivers.xarm import XArm
from tests.robot_bridge.drivers.xarm_server import BOX_HIGH_M, BOX_LOW_M, XArmOptions, down
arm = XArm(XArmOptions(sys.argv[1], BOX_LOW_M, BOX_HIGH_M, control_port=int(sys.argv[2])))
arm.connect(20.0)
arm.recover()
while True:
    arm.servo(down(0.6, 0.19, 0.25), 0.2)
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def sdk(server: Server) -> Iterator[Any]:
    from xarm.core.config.x_config import XCONF
    from xarm.wrapper import XArmAPI

    XCONF.SocketConf.TCP_CONTROL_PORT = CONTROL_PORT
    keep_default_timeout()
    sdk = XArmAPI(server.host, is_radian=True, forbid_uds=True)
    sdk.clean_error()
    sdk.motion_enable(enable=True)
    sdk.set_mode(0)
    sdk.set_state(0)
    yield sdk
    sdk.disconnect()


def go(sdk: Any, y: float, **options: Any) -> int:
    return sdk.set_position(600.0, y, 250.0, math.pi, 0.0, 0.0, speed=200.0, mvacc=2000.0, **options)


def test_a_motion_that_is_waited_for_has_ended(server: Server, sdk: Any):
    assert go(sdk, 80.0, wait=True, timeout=10.0) == 0
    assert server.tool_m() == pytest.approx((0.6, 0.08, 0.25), abs=2e-3)
    code, position = sdk.get_position()
    assert (code, position[:3]) == (0, pytest.approx([600.0, 80.0, 250.0], abs=2.0))


def test_motions_queue_and_a_pause_resumes(server: Server, sdk: Any):
    go(sdk, 0.0, wait=True, timeout=10.0)
    assert go(sdk, 100.0) == 0
    assert go(sdk, -100.0) == 0
    wait_for(lambda: server.tool_m()[1] > 0.02)
    sdk.set_state(3)
    wait_for(lambda: not server.truth()["moving"])
    assert server.tool_m()[1] < 0.09
    sdk.set_state(0)
    wait_for(lambda: server.tool_m()[1] > 0.098)
    wait_for(lambda: server.tool_m()[1] < -0.098)


def test_the_servo_mode_follows(server: Server, sdk: Any):
    go(sdk, 0.0, wait=True, timeout=10.0)
    sdk.set_mode(1)
    sdk.set_state(0)
    time.sleep(0.3)
    for step in range(101):
        assert sdk.set_servo_cartesian([600.0, 0.5 * step, 250.0, math.pi, 0.0, 0.0]) == 0
        time.sleep(0.01)
    wait_for(lambda: abs(server.tool_m()[1] - 0.05) < 2e-3)


def test_the_librarys_emergency_stop(server: Server, sdk: Any):
    go(sdk, -150.0, wait=True, timeout=10.0)
    go(sdk, 150.0)
    wait_for(lambda: server.truth()["twist"][1] > 0.15)
    before = server.tool_m()
    sdk.emergency_stop()
    wait_for(lambda: not server.truth()["moving"])
    assert math.dist(server.tool_m(), before) < 0.05
    assert go(sdk, 0.0) == 9  # not ready to move
    assert sdk.state == 4


def test_a_motion_that_is_waited_for_ends_with_a_collision(server: Server, sdk: Any):
    go(sdk, -150.0, wait=True, timeout=10.0)
    server.inject("collision")
    assert go(sdk, 150.0, wait=True, timeout=10.0) != 0
    assert sdk.get_err_warn_code() == (0, [31, 0])


def test_the_gripper_the_librarys_own_way(server: Server, sdk: Any):
    assert sdk.set_gripper_enable(enable=True) == 0
    assert sdk.set_gripper_position(420, wait=True, timeout=5.0) == 0
    assert sdk.get_gripper_position() == (0, pytest.approx(420, abs=10))
    assert server.truth()["width_m"] == pytest.approx(0.042, abs=1e-3)
    assert sdk.get_gripper_version() == (0, "3.4.3")


def test_a_controller_that_turns_the_tool_is_refused(server: Server, sdk: Any):
    assert sdk.set_tcp_offset([0.0, 0.0, 172.0, 0.0, 0.0, 0.2]) == 0
    arm = XArm(server.options)
    with pytest.raises(RobotError, match=r"tool offset is \[0\.0, 0\.0, 172\.0\] mm turned by"):
        arm.connect(10.0)
    assert sdk.set_tcp_offset([0.0, 0.0, 172.0, 0.0, 0.0, 0.0]) == 0
    again = XArm(server.options)
    again.connect(10.0)
    again.close()


def test_a_killed_stream_leaves_the_arm_standing(server: Server, sdk: Any):
    """The controller's own watchdog: the process that streams dies of SIGKILL, nobody sends a stop."""
    go(sdk, -150.0, wait=True, timeout=10.0)
    sdk.disconnect()
    child = subprocess.Popen(
        [sys.executable, "-c", STREAM, server.host, str(CONTROL_PORT)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: server.truth()["twist"][1] > 0.15, 30.0)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    before = server.tool_m()
    took_s = wait_for(lambda: not server.truth()["moving"])
    assert took_s < 1.5
    assert math.dist(server.tool_m(), before) < 0.09  # 0.2 s at 0.25 m/s, and the way to stand
    stood = server.tool_m()
    time.sleep(0.3)
    assert server.tool_m() == pytest.approx(stood, abs=1e-3)
