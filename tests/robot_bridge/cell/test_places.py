"""What two cells on one machine may not share."""

import pytest

from qtopt.errors import ConfigError
from robot_bridge.cell.places import STATE_VARIABLE, Places
from robot_bridge.cell_file import parse_cell_file
from tests.robot_bridge.safety.cells import TEXT

CELL = TEXT.replace('driver = "robotiq-ur-socket"', 'driver = "robotiq-rtu"\ndevice = "/dev/serial/by-id/a"')
OTHER_ARM, OTHER_GRIPPER, OTHER_NAME = ("1.10", "1.11"), ("by-id/a", "by-id/b"), ("lab-a", "lab-b")


def places(*changes):
    text = CELL
    for change in changes:
        text = text.replace(*change)
    return Places(parse_cell_file(text))


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ((OTHER_GRIPPER, OTHER_NAME), "arm"),
        ((OTHER_ARM, OTHER_NAME), "gripper"),
        ((OTHER_ARM, OTHER_GRIPPER), "cell's name"),
    ],
)
def test_neither_arm_nor_gripper_nor_name_has_two_users(tmp_path, monkeypatch, changes, shared):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    with places().sole_client():
        with (
            pytest.raises(ConfigError, match=f"the {shared} is in use by process [0-9]+"),
            places(*changes).sole_client(),
        ):
            pass
        with places(OTHER_ARM, OTHER_GRIPPER, OTHER_NAME).sole_client():
            pass
    with places(*changes).sole_client():
        pass


def test_a_gripper_behind_its_arm_is_locked_with_that_arm(tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    text = TEXT.replace('driver = "robotiq-ur-socket"', 'driver = "xarm"').replace('driver = "ur"', 'driver = "xarm"')
    other = text.replace(*OTHER_ARM).replace(*OTHER_NAME)
    with Places(parse_cell_file(text)).sole_client(), Places(parse_cell_file(other)).sole_client():
        pass


def test_arm_and_gripper_of_one_driver_and_address_are_two(tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    text = TEXT.replace('driver = "robotiq-ur-socket"', 'driver = "own"\nhost = "192.168.1.10"')
    with Places(parse_cell_file(text.replace('driver = "ur"', 'driver = "own"'))).sole_client():
        pass
