"""The xArm gripper over the tunnelled tool bus, through the vendor's library, on objects in a simulated bin."""

from collections.abc import Iterator

import pytest

from qtopt.errors import RobotError
from robot_bridge.contracts import Capability, ObjectSensed
from robot_bridge.drivers.xarm import GRIPPER_DRIVER, XArm
from robot_bridge.drivers.xarm_gripper import XArmGripper
from robot_bridge.drivers.xarm_options import XArmGripperOptions
from tests.robot_bridge.drivers.xarm_server import LIBRARY_WARNS, Server, running

pytestmark = [pytest.mark.realtime, LIBRARY_WARNS]
OPEN_M = 0.085


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(seed=1) as server:
        yield server


@pytest.fixture(scope="module")
def arm(server: Server) -> Iterator[XArm]:
    arm = XArm(server.options)
    arm.connect(10.0)
    yield arm
    arm.close()


@pytest.fixture
def gripper(server: Server, arm: XArm) -> Iterator[XArmGripper]:
    gripper = GRIPPER_DRIVER.open(XArmGripperOptions(), arm)
    assert isinstance(gripper, XArmGripper)
    gripper.connect(3.0)
    gripper.activate(3.0)
    gripper.move(OPEN_M, 0.12, 20.0, 5.0)
    yield gripper
    server.inject("gripper_jammed", False)
    server.inject("gripper_silent", False)
    server.inject("gripper_error", 0)


def test_it_closes_on_nothing_and_opens(server: Server, gripper: XArmGripper):
    closed = gripper.move(0.0, 0.12, 20.0, 5.0)
    assert (closed.width_m, closed.moving, closed.object_sensed) == (
        pytest.approx(0.0, abs=1e-3),
        False,
        ObjectSensed.NO,
    )
    opened = gripper.move(0.06, 0.12, 20.0, 5.0)
    assert opened.width_m == pytest.approx(0.06, abs=1e-3)
    assert server.truth()["width_m"] == pytest.approx(0.06, abs=1e-3)
    assert gripper.capabilities == {Capability.GRIPPER_WIDTH, Capability.GRIPPER_OBJECT_FLAG}
    assert gripper.width_range_m == (0.0, OPEN_M)


def test_fingers_that_stick_are_an_error(server: Server, gripper: XArmGripper):
    server.inject("gripper_jammed")
    with pytest.raises(RobotError, match="jammed"):
        gripper.move(0.02, 0.12, 20.0, 3.0)


def test_a_gripper_error_is_named(server: Server, gripper: XArmGripper):
    server.inject("gripper_error", 12)
    with pytest.raises(RobotError, match="error 12"):
        gripper.move(0.02, 0.12, 20.0, 3.0)


def test_a_silent_gripper_is_an_error(server: Server, gripper: XArmGripper):
    server.inject("gripper_silent")
    with pytest.raises(RobotError, match="no answer in time"):
        gripper.state()


def test_millimetres_are_refused(server: Server, gripper: XArmGripper):
    with pytest.raises(RobotError, match="metres"):
        gripper.move(40.0, 0.1, 20.0, 3.0)
    assert server.truth()["width_m"] == pytest.approx(OPEN_M, abs=1e-3)


def test_it_needs_an_xarm():
    with pytest.raises(RobotError, match="tool bus"):
        GRIPPER_DRIVER.open(XArmGripperOptions(), object())  # type: ignore[arg-type]
