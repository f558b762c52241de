"""What every arm does, asked of XArm through the vendor's library and a controller of another process."""

from contextlib import contextmanager

import pytest

from robot_bridge.drivers.xarm import DRIVER
from tests.contracts.arm import ArmContract
from tests.robot_bridge.drivers.xarm_server import LIBRARY_WARNS, running

pytestmark = [pytest.mark.realtime, LIBRARY_WARNS]


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


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
            yield
            server.inject("emergency_stop", False)

        yield emergency_stop
        arm.recover()
