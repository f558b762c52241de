"""Shared memory, channels and records: what is torn, cut off or too large is noticed."""

import os
import subprocess
import sys

import numpy as np
import pytest

from robot_bridge.cell.channel import Channel, ChannelClosed
from robot_bridge.cell.pictures import PictureRing
from robot_bridge.cell.records import Report, pack_report, unpack_report
from robot_bridge.cell.shared import Board, Member, Memory, Ring
from robot_bridge.contracts import ArmMode, ArmState, Frame, GripperState, ObjectSensed, Pose


def arm_state(**changes):
    values = {
        "t_host_ns": 5,
        "t_controller_s": 1.5,
        "pose": Pose((0.1, 0.2, 0.3), (1.0, 0.0, 0.0, 0.0)),
        "twist": (0.1, 0.0, 0.0, 0.0, 0.0, 0.2),
        "wrench": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
        "joints_rad": (0.1, 0.2),
        "mode": ArmMode.MOVING,
        "program_running": False,
        "speed_scale": 0.5,
        "joint_temperature_c": 41.0,
        "codes": {"robot_mode": 7, "text": "ok"},
    }
    return ArmState(**{**values, **changes})


@pytest.mark.parametrize(
    "report",
    [
        Report(),
        Report(arm=arm_state(), ready=True, latch="estop: a person", note="said"),
        Report(arm=arm_state(wrench=None, joints_rad=(), joint_temperature_c=None, codes={}), moving=True),
        Report(arm=arm_state(), gripper=GripperState(7, 0.04, True, ObjectSensed.YES, "jammed")),
    ],
)
def test_a_report_comes_back_as_it_was(report):
    assert unpack_report(pack_report(report)) == report


def test_the_longest_words_fit_a_record():
    words = "é" * 5000
    codes = {f"{number}{words}": words for number in range(100)}
    report = Report(arm_state(codes=codes, joints_rad=(0.0,) * 40), GripperState(0, 0.0, False, ObjectSensed.NO, words))
    board = Board()
    board.arm.write(pack_report(Report(report.arm, report.gripper, latch=words, note=words)))
    assert unpack_report(board.arm.newest()).arm.mode is ArmMode.MOVING
    board.close()
    assert unpack_report(board.arm.newest()).arm.mode is ArmMode.MOVING, "another thread may be reading just then"


def test_a_ring_gives_the_newest_and_refuses_what_is_too_large():
    ring = Ring(Memory(size=Ring.size(16)), 0, 16)
    assert ring.newest() is None
    for number in range(20):
        ring.write(bytes([number]) * (number % 16 + 1))
    assert ring.newest() == bytes([19]) * 4
    with pytest.raises(ValueError, match="at most 16"):
        ring.write(bytes(17))


def test_a_torn_record_is_not_believed():
    memory = Memory(size=Ring.size(16))
    ring = Ring(memory, 0, 16)
    ring.write(b"whole record")
    memory.write(64 + 1 * (16 + 16) + 16 + 2, b"X")  # a byte within the record, as a writer under way would leave it
    assert ring.newest() is None
    ring.write(b"the next one")
    assert ring.newest() == b"the next one"


def test_a_board_is_seen_by_another_process():
    board = Board()
    board.beat(Member.COLLECTOR)
    board.arm.write(pack_report(Report(ready=True, note="from here")))
    code = (
        "import sys; from robot_bridge.cell.shared import Board, Member;"
        "from robot_bridge.cell.records import unpack_report; board = Board(int(sys.argv[1]));"
        "print(unpack_report(board.arm.newest()).note, board.silence_s(Member.COLLECTOR) < 100,"
        "board.silence_s(Member.ARM))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(board.fd)], pass_fds=[board.fd], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "from here True None"
    board.close()


def test_pictures_come_back_with_their_times(rng):
    rgb = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    ring = PictureRing(rgb.nbytes)
    reader = PictureRing(rgb.nbytes, os.dup(ring.fd))
    assert reader.newest() is None
    ring.write(Frame(rgb, 1, 2, 3, "abc"))
    seen = reader.newest()
    assert np.array_equal(seen.rgb, rgb)
    assert (seen.t_capture_ns, seen.t_receive_ns, seen.sequence, seen.settings_hash) == (1, 2, 3, "abc")


def test_channels_carry_messages_and_tell_their_end():
    ours, bare = Channel.pair()
    theirs = Channel(bare)
    for number in range(3):
        ours.send({"id": number, "text": "x" * 40000 * (number == 1)})
    assert [theirs.receive(1.0)["id"] for _ in range(3)] == [0, 1, 2]
    assert theirs.receive(0.0) is None
    ours.close()
    with pytest.raises(ChannelClosed):
        theirs.receive(1.0)
    with pytest.raises(ChannelClosed):
        theirs.send({"id": 0})
    theirs.close()


def test_a_message_of_absurd_length_ends_the_channel():
    ours, bare = Channel.pair()
    bare.sendall(b"\xff\xff\xff\x7f")
    with pytest.raises(ChannelClosed, match="announced"):
        ours.receive(1.0)
    ours.close()
    bare.close()
