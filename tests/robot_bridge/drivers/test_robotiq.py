"""Robotiq's grippers: the bytes of its manual, then one gripper over both wires against real servers."""

import contextlib
import os
import socket
import threading
import time
import tty

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.errors import ConfigError, RobotError
from robot_bridge.contracts import Capability, ObjectSensed
from robot_bridge.drivers.robotiq import (
    RTU_DRIVER,
    SOCKET_DRIVER,
    Calibration,
    RobotiqGripper,
    RtuOptions,
    SocketOptions,
)
from robot_bridge.drivers.robotiq_wires import Registers, RtuWire, SocketWire
from sim.config import SimConfig
from sim.plant import Plant
from sim.servers.robotiq import RobotiqRtuServer, RobotiqSocketServer, parse_fault
from sim.servers.robotiq_model import GripperFault, PlainHand, RobotiqModel
from tests.robot_bridge.drivers.robotiq_process import GripperProcess

FAST = (0.15, 40.0, 5.0)


class Scripted:
    """A slave that answers given frames with given frames and keeps what it was sent, as the manual prints it."""

    def __init__(self, exchanges):
        self.exchanges = {bytes.fromhex(request): bytes.fromhex(answer) for request, answer in exchanges.items()}
        self.heard = []
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.device = os.ttyname(self.slave)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        received = b""
        with contextlib.suppress(OSError):
            while True:
                received += os.read(self.master, 256)
                if received in self.exchanges:
                    self.heard.append(received.hex(" ").upper())
                    os.write(self.master, self.exchanges[received])
                    received = b""

    def close(self):
        os.close(self.slave)
        self.thread.join(2.0)
        os.close(self.master)


ACTIVATE = "09 10 03 E8 00 03 06 01 00 00 00 00 00 72 E1"
CLEAR = "09 10 03 E8 00 03 06 00 00 00 00 00 00 73 30"
CLOSE = "09 10 03 E8 00 03 06 09 00 00 FF FF FF 42 29"
OPEN = "09 10 03 E8 00 03 06 09 00 00 00 FF FF 72 19"
WRITTEN = "09 10 03 E8 00 03 01 30"
STATUS = "09 04 07 D0 00 03 B1 CE"


def test_rtu_writes_and_reads_the_manuals_bytes():
    contact = "09 04 06 B9 00 00 FF BD 00 5C 9A"
    slave = Scripted({CLEAR: WRITTEN, ACTIVATE: WRITTEN, CLOSE: WRITTEN, OPEN: WRITTEN, STATUS: contact})
    wire = RtuWire(slave.device, 115200, 9)
    wire.open(1.0)
    try:
        wire.activate(on=False)
        wire.activate(on=True)
        wire.go(255, 255, 255)
        wire.go(0, 255, 255)
        assert wire.read() == Registers(activation=3, going=True, motion=2, fault=0, echo=255, position=189)
        assert slave.heard == [CLEAR, ACTIVATE, CLOSE, OPEN, STATUS]
    finally:
        wire.close()
        slave.close()


def test_rtu_reads_the_manuals_opened_gripper():
    slave = Scripted({STATUS: "09 04 06 F9 00 00 00 0D 00 17 AA"})
    gripper = RTU_DRIVER.open(RtuOptions(slave.device), None)
    try:
        gripper.connect(1.0)
        state = gripper.state()
        assert (state.object_sensed, state.moving, state.fault) == (ObjectSensed.NO, False, "")
        assert state.width_m == pytest.approx((230 - 13) / 227 * 0.085)
    finally:
        gripper.close()
        slave.close()


def test_the_server_answers_the_manuals_requests():
    model = RobotiqModel(PlainHand(), activation_s=0.0)
    with RobotiqRtuServer(model) as server:
        for request in (CLEAR, ACTIVATE):
            assert server.answer(bytes.fromhex(request)).hex(" ").upper() == WRITTEN
        assert server.answer(bytes.fromhex("09 03 07 D0 00 01 85 CF")).hex(" ").upper() == "09 03 02 31 00 4C 15"
        for request in (CLOSE, OPEN):
            assert server.answer(bytes.fromhex(request)).hex(" ").upper() == WRITTEN
        assert server.answer(bytes.fromhex(CLOSE[:-2] + "00")) == b""
        assert server.answer(bytes.fromhex("09 06 03 E8 01 00 09 62"))[1:2] == b"\x86"


def test_the_server_reports_activation_as_the_manual_does():
    with RobotiqRtuServer(RobotiqModel(PlainHand(), activation_s=60.0)) as server:
        server.answer(bytes.fromhex(ACTIVATE))
        assert server.answer(bytes.fromhex("09 03 07 D0 00 01 85 CF")).hex(" ").upper() == "09 03 02 11 00 55 D5"


class Lines:
    """A listener that answers lines by a table, in pieces if asked to."""

    def __init__(self, answers, pieces=False):
        self.heard, self.answers, self.pieces = [], answers, pieces
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def close(self):
        self.listener.close()
        self.thread.join(2.0)

    def _serve(self):
        with contextlib.suppress(OSError):
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    self.heard.append(line)
                    answer = self.answers[line.split()[-1] if line.startswith(b"GET") else b"SET"]
                    for piece in [answer[i : i + 1] for i in range(len(answer))] if self.pieces else [answer]:
                        connection.sendall(piece)
                        time.sleep(0.002 if self.pieces else 0.0)


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_the_socket_speaks_the_caps_lines_whole_split_or_without_an_end(pieces, end):
    answers = {name: name + b" 3" + end for name in (b"STA", b"OBJ", b"FLT", b"PRE")}
    answers[b"GTO"] = b"GTO 1" + end
    server = Lines({**answers, b"POS": b"POS 189" + end, b"SET": b"ack" + end}, pieces)
    wire = SocketWire("127.0.0.1", server.port)
    wire.open(1.0)
    wire.activate(on=True)
    wire.go(255, 128, 50)
    assert wire.read() == Registers(3, True, 3, 3, 3, 189)
    assert wire.read().position == 189
    assert server.heard[:3] == [b"SET ACT 1\n", b"SET POS 255 SPE 128 FOR 50 GTO 1\n", b"GET STA\n"]
    wire.close()
    server.close()


@pytest.mark.parametrize("answer", [b"POS 3\n", b"STA\n", b"STA x\n", b"?\n"])
def test_nonsense_from_the_socket_is_named(answer):
    server = Lines({b"STA": answer})
    wire = SocketWire("127.0.0.1", server.port)
    wire.open(1.0)
    with pytest.raises(RobotError, match="expected 'STA'"):
        wire.read()
    wire.close()
    server.close()


@given(st.integers(0, 255), st.floats(0.0, 0.085))
def test_widths_and_positions_agree(position, width_m):
    calibration = Calibration()
    if 3 < position < 230:
        assert calibration.position(calibration.width_m(position)) == position
    if width_m > 0.0:
        assert calibration.width_m(calibration.position(width_m)) == pytest.approx(width_m, abs=0.085 / 227 * 4)
    assert calibration.position(0.0) == 255
    assert calibration.position(0.085) == 0
    assert 0 <= calibration.speed(width_m) <= 255


@pytest.mark.parametrize(
    "settings",
    [{"open_position": 240}, {"open_width_m": -0.1}, {"force_n": (50.0, 20.0)}, {"closed_position": 256}],
)
def test_calibrations_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError):
        Calibration(**settings)


@contextlib.contextmanager
def connected(wire):
    process = GripperProcess(wire)
    try:
        process.gripper.connect(5.0)
        yield process
    finally:
        process.gripper.close()
        process.gripper.close()
        process.kill()


@pytest.fixture(scope="module", params=["socket", "rtu"])
def served(request):
    """A gripper's process for all tests of a wire that leave it alive."""
    with connected(request.param) as process:
        yield process


@pytest.fixture
def gripper(served):
    """An active gripper with nothing between its fingers, whatever the test before has left."""
    served.fault("object 0")
    served.gripper.close()
    served.gripper.connect(5.0)
    served.gripper.activate(5.0)
    return served.gripper


@pytest.mark.realtime
@pytest.mark.parametrize("wire", ["socket", "rtu"])
def test_a_gripper_does_not_move_before_it_is_activated(wire):
    with connected(wire) as served:
        with pytest.raises(RobotError, match="activate"):
            served.gripper.move(0.0, *FAST)
        served.gripper.activate(5.0)
        assert served.gripper.move(0.0, *FAST).width_m == 0.0


@pytest.mark.realtime
def test_a_gripper_over_either_wire(served, gripper):
    assert gripper.capabilities == {
        Capability.GRIPPER_WIDTH,
        Capability.GRIPPER_OBJECT_FLAG,
        Capability.GRIPPER_FORCE,
    }
    gripper.activate(0.0)
    closed = gripper.move(0.0, *FAST)
    assert (closed.width_m, closed.object_sensed, closed.moving) == (0.0, ObjectSensed.NO, False)
    half = gripper.move(0.05, *FAST)
    assert half.width_m == pytest.approx(0.05, abs=0.001)
    served.fault("object 0.03")
    held = gripper.move(0.0, *FAST)
    assert held.width_m == pytest.approx(0.03, abs=0.001)
    assert held.object_sensed is ObjectSensed.YES
    # The flag lies, the width does not.
    served.fault("flag 3")
    assert gripper.state().object_sensed is ObjectSensed.NO
    assert gripper.state().width_m == pytest.approx(0.03, abs=0.001)


@pytest.mark.realtime
def test_faults_over_either_wire(served, gripper):
    gripper.move(0.085, *FAST)
    served.fault("jammed")
    jammed = gripper.move(0.0, *FAST)
    assert jammed.width_m == pytest.approx(0.085, abs=0.001)
    served.fault("code 14")
    for call in (gripper.state, lambda: gripper.move(0.05, *FAST)):
        with pytest.raises(RobotError, match="current"):
            call()
    served.fault("none")
    started = time.monotonic()
    with pytest.raises(RobotError, match="still moves"):
        gripper.move(0.0, 0.02, 40.0, 0.3)
    assert time.monotonic() - started < 3.0
    served.fault("silent")
    started = time.monotonic()
    with pytest.raises(RobotError, match="silent"):
        gripper.state()
    assert time.monotonic() - started < 3.0
    served.fault("none")
    time.sleep(1.0)
    assert gripper.state().fault == "", "heard again, without a word of ours"


@pytest.mark.parametrize("code", [5, 7, 15])
def test_a_gripper_that_wants_to_be_activated_is_not_refused_before(code):
    model = RobotiqModel(PlainHand(), activation_s=0.01)
    with (
        RobotiqSocketServer(model, "127.0.0.1", 0) as server,
        contextlib.closing(RobotiqGripper(SocketWire(*server.address), Calibration())) as gripper,
    ):
        gripper.connect(5.0)
        model.fault = GripperFault(code=code)
        assert gripper.state().fault == ""
        gripper.activate(5.0)
        assert gripper.move(0.05, *FAST).width_m == pytest.approx(0.05, abs=0.001)
        model.fault = GripperFault(code=code)
        with pytest.raises(RobotError, match="activat"):
            gripper.state()


@pytest.mark.realtime
@pytest.mark.parametrize("wire", ["socket", "rtu"])
def test_a_killed_gripper_is_an_error_soon(wire):
    with connected(wire) as served:
        served.gripper.activate(5.0)
        served.kill()
        started = time.monotonic()
        with pytest.raises(RobotError):
            served.gripper.move(0.0, *FAST)
        assert time.monotonic() - started < 3.0


def test_nobody_there_is_named():
    with pytest.raises(RobotError, match="cannot be reached"):
        SOCKET_DRIVER.open(SocketOptions("127.0.0.1", 1), None).connect(1.0)
    with pytest.raises(RobotError, match="cannot be opened"):
        RTU_DRIVER.open(RtuOptions("/dev/tty-none"), None).connect(1.0)
    with pytest.raises(RobotError, match="connect"):
        RTU_DRIVER.open(RtuOptions("/dev/tty-none"), None).state()


@pytest.mark.realtime
def test_the_simulated_hand_behind_the_socket():
    calibration = Calibration(open_width_m=0.10)
    with Plant(SimConfig(object_count=(1, 1))) as plant:
        model = RobotiqModel(plant, open_width_m=0.10, active=True)
        with (
            RobotiqSocketServer(model, "127.0.0.1", 0) as server,
            contextlib.closing(RobotiqGripper(SocketWire(*server.address), calibration)) as gripper,
        ):
            gripper.connect(5.0)
            gripper.activate(5.0)
            for width_m in (0.0, 0.06, 0.10):
                assert gripper.move(width_m, 0.15, 40.0, 20.0).width_m == pytest.approx(width_m, abs=0.003)
                assert plant.state().width_m == pytest.approx(width_m, abs=0.003)


@pytest.mark.parametrize("line", ["melt", "flag x", "object"])
def test_unknown_faults_are_refused(line):
    with pytest.raises(ConfigError):
        parse_fault(line, PlainHand())
    assert parse_fault("code 9", PlainHand()) == GripperFault(code=9)
