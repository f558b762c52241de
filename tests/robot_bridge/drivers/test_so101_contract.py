"""What every arm and gripper does, asked of the SO-101 on its simulated bus."""

import contextlib

import pytest

from robot_bridge.drivers.so101 import GRIPPER_DRIVER, So101Arm
from robot_bridge.drivers.so101_gripper import So101GripperOptions
from robot_bridge.robot import ToolPose
from tests.contracts.arm import ArmContract
from tests.contracts.gripper import GripperContract
from tests.robot_bridge.drivers.so101_cell import Servos, make_cell

pytestmark = pytest.mark.realtime


@pytest.fixture(scope="module")
def servos():
    """Servos on a bus."""
    servos = Servos()
    yield servos
    servos.close()


@pytest.fixture(scope="module")
def options(servos, tmp_path_factory):
    return make_cell(servos, tmp_path_factory.mktemp("cell"))


class TestSo101Arm(ArmContract):
    START = ToolPose(0.19, 0.0, 0.06, 0.0)
    STRAIGHT_M = 0.005  # a step of a servo is 1.5 mrad

    @pytest.fixture
    def open_arm(self, options):
        return lambda: So101Arm(options)

    @pytest.fixture
    def silent(self, servos):
        @contextlib.contextmanager
        def silent_bus():
            servos.ask(silent=True)
            try:
                yield
            finally:
                servos.ask(silent=False)

        return silent_bus


class TestSo101Gripper(GripperContract):
    @pytest.fixture
    def gripper(self, options):
        with contextlib.closing(So101Arm(options)) as arm:
            arm.connect(5.0)
            gripper = GRIPPER_DRIVER.open(So101GripperOptions(), arm)
            gripper.connect(5.0)
            yield gripper
