"""The conformance suites on driver number 0: arm, gripper and camera of a plant in this process."""

import pytest

from sim.config import SimConfig
from sim.driver import SimArm, SimArmOptions, SimStopChannel
from sim.driver_camera import PlantCamera, PlantCameraOptions
from sim.driver_gripper import SimGripper, SimGripperOptions
from sim.plant import Plant
from tests.contracts.arm import ArmContract
from tests.contracts.camera import CameraContract
from tests.contracts.gripper import GripperContract

pytestmark = pytest.mark.realtime


@pytest.fixture(scope="module")
def plant():
    with Plant(SimConfig(object_count=(1, 1))) as plant:
        yield plant


class TestSimArm(ArmContract):
    @pytest.fixture
    def open_arm(self, plant):
        return lambda: SimArm(SimArmOptions(name="contract"), plant)

    @pytest.fixture
    def stop_channel(self, arm):
        return SimStopChannel(SimArmOptions(name="contract"))


class TestSimGripper(GripperContract):
    @pytest.fixture
    def gripper(self, plant):
        arm = SimArm(SimArmOptions(), plant)
        arm.connect(5.0)
        gripper = SimGripper(SimGripperOptions(), arm)
        gripper.connect(5.0)
        gripper.activate(5.0)
        yield gripper
        arm.close()


class TestPlantCamera(CameraContract):
    @pytest.fixture
    def camera(self, plant):
        camera = PlantCamera(PlantCameraOptions(), plant)
        camera.start(10.0)
        yield camera
        camera.stop()
