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


NORMAL, STOPPED = 1 << 0, 1 << 10


@pytest.mark.parametrize(
    ("robot", "safety", "bits", "mode"),
    [
        (7, 1, NORMAL, ArmMode.READY),
        (7, 2, 1 << 1, ArmMode.READY),
        (7, 3, 1 << 2 | STOPPED, ArmMode.PROTECTIVE_STOP),
        (7, 4, 1 << 3, ArmMode.MANUAL),
        (7, 5, 1 << 4 | STOPPED, ArmMode.SAFEGUARD_STOP),
        (3, 6, 1 << 5 | 1 << 7 | STOPPED, ArmMode.EMERGENCY_STOP),
        (3, 7, 1 << 6 | 1 << 7 | STOPPED, ArmMode.EMERGENCY_STOP),
        (7, 8, 1 << 8 | STOPPED, ArmMode.FAULT),
        (7, 9, 1 << 9 | STOPPED, ArmMode.FAULT),
        (3, 1, NORMAL, ArmMode.OFF),
        (5, 1, NORMAL, ArmMode.IDLE),
        (-1, 1, NORMAL, ArmMode.OFFLINE),
        (99, 1, NORMAL, ArmMode.FAULT),
        # The stops of newer software, for which there are no bits of their own.
        (7, 12, STOPPED, ArmMode.SAFEGUARD_STOP),
        (7, 13, STOPPED, ArmMode.SAFEGUARD_STOP),
        (7, 14, STOPPED, ArmMode.SAFEGUARD_STOP),
        (7, 15, STOPPED, ArmMode.EMERGENCY_STOP),
        (7, 16, STOPPED, ArmMode.SAFEGUARD_STOP),
        (7, 18, STOPPED, ArmMode.SAFEGUARD_STOP),
        (7, 19, STOPPED, ArmMode.SAFEGUARD_STOP),
        (7, 20, STOPPED, ArmMode.EMERGENCY_STOP),
        (7, 22, STOPPED, ArmMode.SAFEGUARD_STOP),
        # The worse of both counts.
        (7, 1, NORMAL | 1 << 2, ArmMode.PROTECTIVE_STOP),
        (7, 1, 1 << 4 | STOPPED, ArmMode.SAFEGUARD_STOP),
        (7, 3, 1 << 2 | 1 << 7 | STOPPED, ArmMode.EMERGENCY_STOP),
        (7, 7, NORMAL, ArmMode.EMERGENCY_STOP),
        (7, 7, 1 << 9, ArmMode.FAULT),
        (7, 9, 1 << 7, ArmMode.FAULT),
        (7, 3, 1 << 3, ArmMode.MANUAL),
        # An enabling switch that is used stops nothing by itself.
        (7, 1, NORMAL | 1 << 11, ArmMode.READY),
    ],
)
def test_modes(robot, safety, bits, mode):
    assert arm_mode(robot, safety, bits) is mode


@pytest.mark.parametrize("safety", [*range(-2, 1), 10, 11, 17, 21, *range(23, 40), 255])
@pytest.mark.parametrize("bits", [NORMAL, 1 << 4 | STOPPED])
def test_a_safety_mode_that_nobody_knows_is_a_fault(safety, bits):
    assert arm_mode(7, safety, bits) is ArmMode.FAULT


@pytest.mark.parametrize("bits", [0, STOPPED, NORMAL | STOPPED, 1 << 11])
def test_a_stop_that_nothing_names_is_a_fault(bits):
    assert arm_mode(7, 1, bits) is ArmMode.FAULT


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
