"""RTDE as the vendor publishes it: frames written down by hand, byte for byte, against our reader."""

import socket
import struct
import threading
import time

import pytest

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode
from robot_bridge.drivers.rtde import Frames, Layout, RtdeReader, outputs_request, version_request
from robot_bridge.drivers.ur_state import arm_mode

# Size 5 with header, type 'V' = 0x56, version 2.
VERSION_2 = bytes.fromhex("0005 56 0002")
DATA = bytes.fromhex(
    "0010 55 01"  # size 16, type 'U', recipe 1
    "4045400000000000"  # 42.5 s
    "00000007"  # robot mode 7: running
)


def test_requests_are_what_the_protocol_says():
    assert version_request() == VERSION_2
    wanted = bytes.fromhex("0024 4F 405F400000000000") + b"timestamp,actual_TCP_pose"
    assert outputs_request(125.0, ("timestamp", "actual_TCP_pose")) == wanted


def test_data_is_read_byte_by_byte_doubled_and_in_one_piece():
    layout = Layout(("timestamp", "robot_mode"), b"\x01DOUBLE,INT32")
    frames, found = Frames(), []
    for byte in DATA + DATA:
        found += frames.feed(bytes((byte,)))
    found += Frames().feed(DATA * 3)
    assert [kind for kind, _ in found] == [85] * 5
    assert {tuple(layout.unpack(body).items()) for _, body in found} == {(("timestamp", 42.5), ("robot_mode", 7))}


def test_another_recipe_or_size_is_no_data():
    layout = Layout(("timestamp",), b"\x01DOUBLE")
    assert layout.unpack(b"\x02" + bytes(8)) is None
    assert layout.unpack(b"\x01" + bytes(9)) is None


def test_a_variable_that_is_not_there_is_named():
    with pytest.raises(RobotError, match="actual_TCP_force: NOT_FOUND"):
        Layout(("timestamp", "actual_TCP_force"), b"\x00DOUBLE,NOT_FOUND")


def test_what_is_no_stream_is_an_error():
    with pytest.raises(RobotError, match="frame of size 0"):
        Frames().feed(bytes(8))


@pytest.mark.parametrize(
    ("robot", "safety", "mode"),
    [
        (7, 1, ArmMode.READY),
        (7, 2, ArmMode.READY),
        (7, 3, ArmMode.PROTECTIVE_STOP),
        (7, 5, ArmMode.SAFEGUARD_STOP),
        (3, 6, ArmMode.EMERGENCY_STOP),
        (3, 7, ArmMode.EMERGENCY_STOP),
        (7, 9, ArmMode.FAULT),
        (3, 1, ArmMode.OFF),
        (5, 1, ArmMode.IDLE),
        (-1, 1, ArmMode.OFFLINE),
        (99, 1, ArmMode.FAULT),
    ],
)
def test_modes(robot, safety, mode):
    assert arm_mode(robot, safety) is mode


def test_the_reader_speaks_to_a_scripted_controller():
    """The controller's side is written out in bytes: message, early data and answers in one packet are in between."""
    listener = socket.create_server(("127.0.5.4", 30004))
    heard = []

    def controller():
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(64))
            connection.sendall(bytes.fromhex("0004 56 01"))
            heard.append(connection.recv(256))
            connection.sendall(bytes.fromhex("0009 4D 02") + b"Hi\x01a" + b"\x03" + bytes.fromhex("0010 4F 01"))
            time.sleep(0.05)
            connection.sendall(b"DOUBLE,INT32")
            heard.append(connection.recv(64))
            connection.sendall(bytes.fromhex("0004 53 01") + DATA)
            connection.recv(1)

    thread = threading.Thread(target=controller)
    thread.start()
    reader = RtdeReader("127.0.5.4", ("timestamp", "robot_mode"), 125.0)
    reader.connect(5.0)
    received_ns, values = reader.newest()
    assert values == {"timestamp": 42.5, "robot_mode": 7}
    assert time.monotonic_ns() - received_ns < 5e9
    reader.close()
    thread.join(5.0)
    listener.close()
    assert heard[0] == VERSION_2
    assert heard[1] == bytes.fromhex("001F 4F 405F400000000000") + b"timestamp,robot_mode"
    assert heard[2] == bytes.fromhex("0003 53")
    assert struct.unpack(">d", heard[1][3:11]) == (125.0,)


def test_nobody_there_is_an_error_that_says_what_to_look_at():
    with pytest.raises(RobotError, match="enabled under Settings"):
        RtdeReader("127.0.5.5", ("timestamp",), 125.0).connect(1.0)
