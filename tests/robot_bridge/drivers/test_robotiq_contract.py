"""What every gripper does, asked of Robotiq's over both of its wires, with a gripper's process behind them."""

import contextlib

import pytest

from tests.contracts.gripper import GripperContract
from tests.robot_bridge.drivers.robotiq_process import GripperProcess

pytestmark = pytest.mark.realtime


@pytest.fixture(scope="module", params=["socket", "rtu"])
def served(request):
    process = GripperProcess(request.param)
    yield process
    process.kill()


class TestRobotiq(GripperContract):
    SPEED_M_S = 0.15

    @pytest.fixture
    def gripper(self, served):
        with contextlib.closing(served.gripper) as gripper:
            gripper.connect(5.0)
            gripper.activate(5.0)
            yield gripper
