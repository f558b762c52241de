"""The simulated SO-101 and the driver, each with kinematics of its own, mean the same by a servo's steps."""

import pytest

from robot_bridge.drivers.so101_geometry import Geometry, Tool, inverse
from robot_bridge.drivers.so101_options import load_calibration
from sim.servers.so101 import BASE_X_M, BASE_Z_M, steps_at, tool_at, write_calibration


@pytest.fixture
def calibration(tmp_path):
    write_calibration(tmp_path / "so101.json")
    return load_calibration(tmp_path / "so101.json")


@pytest.mark.parametrize("x_m", [0.14, 0.19, 0.24])
@pytest.mark.parametrize("y_m", [-0.07, 0.0, 0.07])
@pytest.mark.parametrize("z_m", [-0.092, 0.0, 0.055])
@pytest.mark.parametrize("yaw_rad", [-0.8, 0.0, 1.2])
def test_the_tool_is_where_the_driver_wants_it_all_over_the_bin(calibration, x_m, y_m, z_m, yaw_rad):
    joints = inverse(Geometry(), Tool(x_m, y_m, z_m, yaw_rad))
    steps = calibration.steps(joints)
    assert steps is not None, "a joint is beyond its limits"
    found = tool_at(list(steps)).array()
    wanted = [BASE_X_M + x_m, y_m, BASE_Z_M + z_m, yaw_rad]
    assert found == pytest.approx(wanted, abs=2e-3)  # a step is 1.5 mrad


def test_it_begins_with_the_tool_straight_down(calibration):
    pan, lift, elbow, flex, _ = calibration.angles_rad(tuple(round(each) for each in steps_at(0.16, 0.06)))
    assert pan == 0.0
    assert lift + elbow + flex == pytest.approx(-1.5708, abs=3e-3)
