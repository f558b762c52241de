"""Events as the kernel writes them, through a pipe: what they ask for, and that nothing moves without the deadman."""

import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.errors import ConfigError, RobotError
from robot_bridge.config import MotionLimits
from robot_bridge.teleop import HOLD, Gamepad, GamepadMap

# struct js_event of linux/joystick.h, little-endian: u32 time, s16 value, u8 type, u8 number; written out by hand.
DEADMAN_DOWN = bytes.fromhex("e8030000 0100 01 04")
DEADMAN_UP = bytes.fromhex("ea030000 0000 01 04")
DEADMAN_WAS_DOWN = bytes.fromhex("00000000 0100 81 04")
STICK_AWAY = bytes.fromhex("e9030000 0180 02 01")  # axis 1 at -32767
STICK_MIDDLE = bytes.fromhex("e9030000 0000 02 01")
STICK_LITTLE = bytes.fromhex("e9030000 0008 02 01")  # 2048, inside the dead zone
STICK_LEFT = bytes.fromhex("e9030000 0180 02 00")
LIFT = bytes.fromhex("e9030000 0180 02 04")
TURN_RIGHT = bytes.fromhex("e9030000 ff7f 02 03")
CLOSE_DOWN, CLOSE_UP = bytes.fromhex("eb030000 0100 01 00"), bytes.fromhex("ec030000 0000 01 00")
END_DOWN = bytes.fromhex("eb030000 0100 01 07")
TAKE_DOWN, TAKE_UP = bytes.fromhex("ed030000 0100 01 05"), bytes.fromhex("ee030000 0000 01 05")


@pytest.fixture
def pad(tmp_path):
    """A gamepad on a named pipe, and what writes to it."""
    path = tmp_path / "js0"
    os.mkfifo(path)
    gamepad = Gamepad(path)
    writer = os.open(path, os.O_WRONLY)
    yield gamepad, lambda *events: os.write(writer, b"".join(events))
    gamepad.close()
    gamepad.close()
    os.close(writer)


def test_sticks_move_while_the_deadman_is_held(pad):
    gamepad, send = pad
    send(DEADMAN_DOWN, STICK_AWAY, STICK_LEFT, LIFT, TURN_RIGHT)
    command = gamepad.read(0.0)
    assert (command.forward, command.left, command.up, command.turn) == (1.0, 1.0, 1.0, -1.0)
    limits = MotionLimits(step_xy_m=0.02, step_z_m=0.03, step_yaw_rad=0.5)
    expected = [0.02, 0.02, 0.03, np.sin(-0.5), np.cos(-0.5), 0, 0, 0]
    assert np.allclose(command.action(limits), expected, atol=1e-6)
    send(DEADMAN_UP)
    assert gamepad.read(0.0) == HOLD


def test_without_the_deadman_nothing_moves(pad):
    gamepad, send = pad
    send(STICK_AWAY, CLOSE_DOWN, END_DOWN)
    assert gamepad.read(0.05) == HOLD
    send(DEADMAN_DOWN)  # what was pressed before does not count now
    assert gamepad.read(0.0).action(MotionLimits())[5:].tolist() == [0, 0, 0]


def test_a_deadman_that_was_down_at_the_start_does_not_count(pad):
    gamepad, send = pad
    send(DEADMAN_WAS_DOWN, STICK_AWAY)
    assert gamepad.read(0.0) == HOLD


def test_a_short_press_while_waiting_counts_once(pad):
    gamepad, send = pad
    send(DEADMAN_DOWN)
    timer = threading.Timer(0.1, lambda: send(CLOSE_DOWN, CLOSE_UP))
    timer.start()
    assert gamepad.read(20.0).close
    timer.join()
    assert gamepad.read(0.0) == HOLD


def test_what_was_pressed_while_nobody_read_is_not_acted_on(pad):
    gamepad, send = pad
    send(DEADMAN_DOWN, CLOSE_DOWN, CLOSE_UP, END_DOWN)
    assert gamepad.read(0.0) == HOLD


def test_waiting_ends(pad):
    started = time.monotonic()
    assert pad[0].read(0.1) == HOLD
    assert 0.1 <= time.monotonic() - started < 10.0


def test_the_middle_is_wide(pad):
    gamepad, send = pad
    send(DEADMAN_DOWN, STICK_LITTLE)
    assert gamepad.read(0.0) == HOLD


def test_takeover_is_told_with_and_without_the_deadman(pad):
    gamepad, send = pad
    send(TAKE_DOWN, STICK_AWAY)
    command = gamepad.read(0.0)
    assert command.takeover
    assert command.holds
    send(DEADMAN_DOWN)
    assert gamepad.read(0.0).forward == 1.0
    send(TAKE_UP)
    assert not gamepad.read(0.0).takeover


def test_events_may_come_in_pieces(pad):
    gamepad, send = pad
    stream = DEADMAN_DOWN + STICK_AWAY
    for byte in stream:
        send(bytes([byte]))
        command = gamepad.read(0.0)
    assert command.forward == 1.0


@given(st.lists(st.binary(min_size=8, max_size=8), max_size=30))
def test_whatever_comes_without_the_deadman_is_a_hold(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("pads") / "js0"
    os.mkfifo(path)
    gamepad = Gamepad(path)
    writer = os.open(path, os.O_WRONLY)
    deadman = GamepadMap().deadman
    os.write(writer, b"".join(event for event in events if event[7] != deadman) or STICK_AWAY)
    assert gamepad.read(0.0).holds
    os.write(writer, DEADMAN_DOWN)
    action = gamepad.read(0.0).action(MotionLimits())
    assert np.all(np.abs(action[:3]) <= [0.0801, 0.0801, 0.1001])
    gamepad.close()
    os.close(writer)


def test_a_pad_that_is_gone_is_an_error(tmp_path):
    path = tmp_path / "js0"
    with pytest.raises(RobotError, match="cannot be opened"):
        Gamepad(path)
    os.mkfifo(path)
    gamepad = Gamepad(path)
    writer = os.open(path, os.O_WRONLY)
    os.write(writer, DEADMAN_DOWN + STICK_AWAY)
    assert gamepad.read(0.0).forward == 1.0
    os.close(writer)
    with pytest.raises(RobotError, match="it is gone"):
        gamepad.read(0.0)
    gamepad.close()


def test_a_button_has_one_meaning():
    with pytest.raises(ConfigError, match="used twice"):
        GamepadMap(close=4)
