"""What every arm and gripper does, asked of the HTTP driver and its server."""

import pytest

from robot_bridge.cell.parts import make_arm
from robot_bridge.cell_file import load_cell_file
from robot_bridge.contracts import MotionOutcome
from robot_bridge.drivers.http_arm import GRIPPER_DRIVER, HttpArm
from robot_bridge.drivers.http_gripper import HttpGripperOptions
from robot_bridge.drivers.http_stop import HttpStopChannel
from robot_bridge.robot import ToolPose
from sim.faults.cells import SimulatedCell
from tests.contracts.arm import ArmContract
from tests.contracts.gripper import GripperContract
from tests.robot_bridge.conftest import start_server, write_token

pytestmark = pytest.mark.realtime


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with free air between its fingers."""
    served = start_server(write_token(tmp_path_factory.mktemp("server")), free_air=True)
    yield served
    served.kill()


class TestHttpArm(ArmContract):
    START = ToolPose(0.5, 0.0, 0.3, 0.0)

    @pytest.fixture
    def open_arm(self, served):
        return lambda: HttpArm(served.options())

    @pytest.fixture
    def stop_channel(self, served):
        return HttpStopChannel(served.options())

    def test_it_turns(self, tmp_path):
        """The arm behind the server above is a point; the simulator's has an azimuth."""
        with SimulatedCell("http", tmp_path, "127.0.91.8", None) as sim:
            arm = make_arm(load_cell_file(sim.path))
            arm.connect(5.0)
            try:
                assert self.go(arm, self.start()).outcome is MotionOutcome.REACHED
                super().test_it_turns(arm)
            finally:
                arm.close()


class TestHttpGripper(GripperContract):
    @pytest.fixture
    def gripper(self, served, connect):
        gripper = GRIPPER_DRIVER.open(HttpGripperOptions(), connect(served))
        gripper.connect(5.0)
        gripper.activate(5.0)
        return gripper
