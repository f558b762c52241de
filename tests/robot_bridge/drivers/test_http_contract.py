"""What every arm and gripper does, asked of the HTTP driver and its server."""

from contextlib import contextmanager

import pytest

from robot_bridge.cell.parts import make_arm, make_stop_channel
from robot_bridge.cell_file import load_cell_file
from robot_bridge.drivers.http_arm import GRIPPER_DRIVER
from robot_bridge.drivers.http_gripper import HttpGripperOptions
from sim.faults.cells import SimulatedCell
from tests.contracts.arm import ArmContract
from tests.contracts.gripper import GripperContract
from tests.robot_bridge.conftest import start_server, write_token

pytestmark = pytest.mark.realtime


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    """An arm with physics behind the server."""
    with SimulatedCell("http", tmp_path_factory.mktemp("sim"), "127.0.91.8", None) as sim:
        yield sim


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with free air between its fingers."""
    served = start_server(write_token(tmp_path_factory.mktemp("server")), free_air=True)
    yield served
    served.kill()


class TestHttpArm(ArmContract):
    @pytest.fixture
    def open_arm(self, sim):
        return lambda: make_arm(load_cell_file(sim.path))

    @pytest.fixture
    def stop_channel(self, sim):
        return make_stop_channel(load_cell_file(sim.path))

    @pytest.fixture
    def unready(self, sim):
        return lambda: fault(sim, "emergency_stop")

    @pytest.fixture
    def silent(self, sim):
        return lambda: fault(sim, "silent")


@contextmanager
def fault(sim, name):
    """Has something go wrong; afterwards a person has put it right."""
    sim.inject(name)
    try:
        yield
    finally:
        sim.inject(name, on=False)
        sim.inject("person")


class TestHttpGripper(GripperContract):
    @pytest.fixture
    def gripper(self, served, connect):
        gripper = GRIPPER_DRIVER.open(HttpGripperOptions(), connect(served))
        gripper.connect(5.0)
        gripper.activate(5.0)
        return gripper
