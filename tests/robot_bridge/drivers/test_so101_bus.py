"""What ends the thread that talks on an SO-101's bus: the arm must not go on counting as ready."""

import math
import threading
import time

import pytest

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode, MotionOutcome, Pose
from robot_bridge.drivers.so101 import DRIVER, GRIPPER_DRIVER
from robot_bridge.drivers.so101_geometry import Geometry, Tool
from robot_bridge.drivers.so101_gripper import So101GripperOptions
from robot_bridge.drivers.so101_loop import BusLoop
from robot_bridge.drivers.so101_motions import StreamMotion
from robot_bridge.drivers.so101_options import load_calibration
from tests.robot_bridge.drivers.so101_cell import Servos, make_cell


class UnheardOfError(Exception):
    """What a library raises that nobody reckons with."""


class Line:
    """A bus that fails in its own way."""

    def sync_read(self, *_):
        raise UnheardOfError("of this")


@pytest.fixture
def servos():
    servos = Servos()
    yield servos
    servos.close()


def wait_for(condition, seconds=10.0):
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


@pytest.mark.parametrize("moving", [False, True])
def test_whatever_ends_the_thread_is_a_lost_bus(servos, tmp_path, moving):
    options = make_cell(servos, tmp_path)
    loop = BusLoop(options, load_calibration(options.calibration_file))
    if moving:
        loop.begin(StreamMotion(Geometry(), Tool(0.2, 0.0, 0.1, 0.0), 0.0, 0.1, 0.8))
    loop._run(Line())
    assert (loop.lost, loop.moving) == ("UnheardOfError: of this", False)
    assert loop.wait(time.monotonic()) == (MotionOutcome.LINK_LOST, "UnheardOfError: of this")


@pytest.mark.realtime
def test_an_unplugged_bus_is_lost_for_good(servos, tmp_path):
    arm = DRIVER.open(make_cell(servos, tmp_path))
    arm.connect(5.0)
    gripper = GRIPPER_DRIVER.open(So101GripperOptions(), arm)
    start = arm.state().pose
    x_m, y_m, z_m = start.position_m
    target, results = Pose((x_m, y_m + 0.10, z_m), (1.0, 0.0, 0.0, 0.0)), []
    thread = threading.Thread(target=lambda: results.append(arm.move_to(target, 0.03, 0.5, 30.0)), daemon=True)
    thread.start()
    wait_for(lambda: math.dist(arm.state().pose.position_m, start.position_m) > 0.003)
    servos.process.kill()  # closes the other end of the line, as a plug that is pulled does
    servos.process.wait()
    thread.join(10)
    assert [each.outcome for each in results] == [MotionOutcome.LINK_LOST]
    assert arm.state().mode is ArmMode.OFFLINE
    assert arm.move_to(start, 0.1, 0.5, 5.0).outcome is MotionOutcome.REJECTED
    with pytest.raises(RobotError, match="bus is lost"):
        gripper.state()
    arm.stop(2.0)
    arm.close()
