"""The bus client against the packets printed in the protocol's manual, and against a real process on a pty."""

import os
import pty
import threading
import tty

import pytest

from robot_bridge.drivers.feetech import BusError, Fault, Register, ServoBus, checksum, from_word, packet, to_word
from sim.servers.feetech import Bus
from tests.robot_bridge.drivers.so101_cell import Servos

PRINTED = [
    ("FF FF 01 02 01 FB", packet(1, 1)),
    ("FF FF 01 04 02 38 02 BE", packet(1, 2, bytes((0x38, 2)))),
    ("FF FF FE 04 03 05 01 F4", packet(0xFE, 3, bytes((5, 1)))),
    ("FF FF 01 09 03 2A 00 08 00 00 E8 03 D5", packet(1, 3, b"\x2a" + to_word(2048) + to_word(0) + to_word(1000))),
    (
        "FF FF FE 20 83 2A 06 01 00 08 00 00 E8 03 02 00 08 00 00 E8 03 03 00 08 00 00 E8 03 04 00 08 00 00 E8 03 58",
        packet(
            0xFE,
            0x83,
            b"\x2a\x06" + b"".join(bytes((i,)) + to_word(2048) + b"\0\0" + to_word(1000) for i in range(1, 5)),
        ),
    ),
    ("FF FF FE 06 82 38 08 01 02 36", packet(0xFE, 0x82, bytes((0x38, 8, 1, 2)))),
]


@pytest.mark.parametrize(("printed", "made"), PRINTED)
def test_packets_are_those_of_the_manual(printed, made):
    assert made == bytes.fromhex(printed)


@pytest.mark.parametrize("printed", ["FF FF 01 02 00 FC", "FF FF 01 04 00 18 05 DD"])
def test_checksums_of_printed_replies(printed):
    reply = bytes.fromhex(printed)
    assert checksum(reply[2:-1]) == reply[-1]


def test_words_have_sign_and_magnitude():
    assert from_word(bytes.fromhex("1805")) == 1304
    assert from_word(to_word(-1304)) == -1304
    assert from_word((0x400 | 250).to_bytes(2, "little"), sign_bit=10) == -250
    with pytest.raises(BusError):
        to_word(40_000)


def test_the_simulated_bus_answers_the_printed_questions():
    bus = Bus([1304.0, 2048.0])
    assert bus.hear(bytes.fromhex("FFFF010201FB")).hex(" ") == "ff ff 01 02 00 fc"
    assert bus.hear(bytes.fromhex("FFFF0104023802BE")).hex(" ") == "ff ff 01 04 00 18 05 dd"
    assert bus.hear(bytes.fromhex("FFFF0104023802BF")) == b"", "a wrong checksum is not answered"
    split = bytes.fromhex("FFFF0104023802BE")
    assert b"".join(bus.hear(split[at : at + 1]) for at in range(8)).hex() == "ffff01040018" + "05dd"


@pytest.fixture
def answering():
    """A port whose other side answers anything with the bytes it was given."""
    opened = []

    def start(reply):
        master, slave = pty.openpty()
        tty.setraw(slave)

        def answer():
            os.read(master, 100)
            os.write(master, reply)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        bus = ServoBus(os.ttyname(slave), timeout_s=0.5)
        opened.append((bus, master, slave, thread))
        return bus

    yield start
    for bus, master, slave, thread in opened:
        bus.close()
        thread.join(5)
        os.close(master)
        os.close(slave)


def test_a_printed_reply_is_read(answering):
    reply = answering(bytes.fromhex("FFFF0104001805DD")).read(1, Register.PRESENT_POSITION, 2)
    assert (reply.servo, reply.faults, from_word(reply.data)) == (1, Fault(0), 1304)


def test_noise_before_a_reply_is_skipped_and_faults_are_seen(answering):
    body = bytes((1, 4, 0x24, 0x18, 0x05))
    reply = answering(b"\x00\xff\x07" + b"\xff\xff" + body + bytes((checksum(body),))).read(1, 56, 2)
    assert reply.faults == Fault.OVERLOAD | Fault.TEMPERATURE


@pytest.mark.parametrize(
    ("reply", "match"),
    [
        ("FFFF0104001805DC", "wrong checksum"),
        ("FFFF010200FC", "length"),
        ("FFFF0204001805DC", "in place of servo 1"),
        ("FFFF0104", "did not answer"),
    ],
)
def test_a_bad_reply_is_an_error(answering, reply, match):
    with pytest.raises(BusError, match=match):
        answering(bytes.fromhex(reply)).read(1, 56, 2)


@pytest.mark.realtime
def test_a_bus_of_six(tmp_path):
    servos = Servos()
    bus = ServoBus(servos.port, timeout_s=0.5)
    try:
        assert int.from_bytes(bus.read(3, Register.MODEL, 2).data, "little") == 777
        bus.write(2, Register.TORQUE_ENABLE, b"\1")
        bus.sync_write(Register.GOAL_POSITION, {2: to_word(2100) + b"\0\0" + to_word(0), 3: to_word(9) + bytes(4)})
        for _ in range(1000):
            replies = bus.sync_read(range(1, 7), Register.PRESENT_POSITION, 15)
            if from_word(replies[2].data) == 2100:
                break
        assert [from_word(reply.data) for reply in replies.values()] == [2048, 2100, 2048, 2048, 2048, 2048]
        with pytest.raises(BusError, match="servo 9 did not answer"):
            bus.ping(9)
        servos.ask(damage=1)
        with pytest.raises(BusError, match="checksum"):
            bus.ping(1)
        bus.ping(1)
    finally:
        bus.close()
        servos.close()


def test_a_port_that_is_unplugged_is_an_error_of_the_bus():
    master, slave = pty.openpty()
    tty.setraw(slave)
    bus = ServoBus(os.ttyname(slave), timeout_s=0.05)
    os.close(slave)
    os.close(master)
    for ask in (lambda: bus.ping(1), lambda: bus.sync_write(Register.GOAL_POSITION, {1: to_word(2048)})):
        with pytest.raises(BusError, match="failed"):
            ask()
    bus.close()


def test_a_port_that_is_not_there(tmp_path):
    with pytest.raises(BusError, match="plugged in"):
        ServoBus(str(tmp_path / "none"))
