"""What every arm and gripper does, asked through the vendor's library of a controller of another process."""

from contextlib import contextmanager

import pytest

from robot_bridge.drivers.xarm import DRIVER, GRIPPER_DRIVER
from robot_bridge.drivers.xarm_options import XArmGripperOptions
from tests.contracts.arm import ArmContract
from tests.contracts.gripper import GripperContract
from tests.robot_bridge.drivers.xarm_server import LIBRARY_WARNS, running

pytestmark = [pytest.mark.realtime, LIBRARY_WARNS]


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def carrier(server):
    """The arm that the gripper hangs on, for all of its tests."""
    arm = DRIVER.open(server.options)
    arm.connect(10.0)
    yield arm
    arm.close()


class TestXArm(ArmContract):
    @pytest.fixture
    def open_arm(self, server):
        return lambda: DRIVER.open(server.options)

    @pytest.fixture
    def stop_channel(self, server, arm):
        """Its stop is somebody else's to the arm, which wants to be recovered afterwards."""
        yield DRIVER.open_stop_channel(server.options)
        arm.recover()

    @pytest.fixture
    def unready(self, server, arm):
        @contextmanager
        def emergency_stop():
            server.inject("emergency_stop", True)
            try:
                yield
            finally:
                server.inject("emergency_stop", False)

        yield emergency_stop
        arm.recover()

    @pytest.fixture
    def silent(self, server):
        @contextmanager
        def silent_reports():
            server.inject("silent_reports", True)
            try:
                yield
            finally:
                server.inject("silent_reports", False)

        return silent_reports


class TestXArmGripper(GripperContract):
    SPEED_M_S = 0.12

    @pytest.fixture
    def gripper(self, carrier):
        gripper = GRIPPER_DRIVER.open(XArmGripperOptions(), carrier)
        gripper.connect(3.0)
        gripper.activate(3.0)
        return gripper
