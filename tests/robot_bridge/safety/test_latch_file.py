"""Locks that outlive their process, whatever ends it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qtopt.errors import RobotError
from robot_bridge.contracts import Latch
from robot_bridge.safety.latch_file import (
    CLEARED,
    COMMISSIONING,
    GUARD,
    LATCH,
    LOG,
    ClearedStops,
    Commissioning,
    LatchFile,
)

REASON = Latch("box", "the tool is outside", 12.5)


@pytest.fixture
def latch_file(tmp_path):
    return LatchFile(tmp_path / "state")


def test_it_is_read_back_by_another(latch_file, tmp_path):
    assert latch_file.read() is None
    latch_file.write(REASON)
    assert LatchFile(tmp_path / "state").read() == REASON


def test_the_first_reason_stays(latch_file):
    latch_file.write(REASON)
    latch_file.write(Latch("tcp_speed", "later", 13.0))
    assert latch_file.read() == REASON


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rule": "box"}', "\xff"])
def test_a_damaged_latch_is_a_latch(latch_file, tmp_path, content):
    (tmp_path / "state" / LATCH).write_text(content, encoding="latin-1")
    assert latch_file.read().rule == "latch_file"
    latch_file.acknowledge("ann", "looked")
    assert latch_file.read() is None


def test_acknowledging_is_written_down_and_never_forgotten(latch_file, tmp_path):
    for number in range(2):
        latch_file.write(REASON)
        latch_file.acknowledge(f"ann {number}", "the bin had slipped")
    latch_file.acknowledge("bob", "nothing to acknowledge")
    entries = [json.loads(line) for line in (tmp_path / "state" / LOG).read_text().splitlines()]
    assert [entry["operator"] for entry in entries] == ["ann 0", "ann 1"]
    assert entries[0]["reason"] == "the bin had slipped"
    assert entries[0]["latch"] == {"rule": "box", "reason": "the tool is outside", "time_s": 12.5}


def test_who_locks_while_somebody_looks_is_not_unlocked_with_the_rest(latch_file):
    latch_file.write(REASON)
    stamp = latch_file.stamp()
    latch_file.write(Latch("estop", "a person pressed it", 13.0))
    with pytest.raises(RobotError, match="locked motion again"):
        latch_file.acknowledge("ann", "looked before", stamp)
    assert latch_file.read() == REASON
    latch_file.acknowledge("ann", "looked once more", latch_file.stamp())
    assert (latch_file.read(), latch_file.stamp()) == (None, 0)


def test_who_locks_while_the_acknowledgement_is_being_stored_is_not_unlocked(latch_file, tmp_path, monkeypatch):
    latch_file.write(REASON)
    fsync = os.fsync

    def slow(descriptor):
        monkeypatch.setattr(os, "fsync", fsync)
        LatchFile(tmp_path / "state").write(Latch("estop", "a person pressed it", 13.0))  # waits a second for the guard
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    with pytest.raises(RobotError, match="locked motion again"):
        latch_file.acknowledge("ann", "looked before")
    assert latch_file.read() == REASON


def test_nobody_unlocks_beside_somebody_who_locks(latch_file, tmp_path):
    latch_file.write(REASON)
    with (tmp_path / "state" / GUARD).open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        latch_file.write(REASON)
        with pytest.raises(RobotError, match="try again"):
            latch_file.acknowledge("ann", "looked")
    latch_file.acknowledge("ann", "looked")
    assert latch_file.read() is None


def test_another_accounts_lock_is_made_new_as_well(latch_file, monkeypatch):
    latch_file.write(REASON)
    stamp = latch_file.stamp()

    def refused(*_, **__):
        raise PermissionError("not its owner")

    monkeypatch.setattr(os, "utime", refused)
    time.sleep(0.02)  # a file system's clock goes on in steps
    latch_file.write(Latch("estop", "a person pressed it", 13.0))
    assert (latch_file.read(), latch_file.stamp() > stamp) == (REASON, True)


def test_a_name_and_a_reason_are_needed(latch_file):
    latch_file.write(REASON)
    with pytest.raises(RobotError, match="name and a reason"):
        latch_file.acknowledge(" ", "looked")
    assert latch_file.read() == REASON


def test_a_log_that_cannot_be_written_keeps_it_locked(latch_file, tmp_path):
    latch_file.write(REASON)
    (tmp_path / "state" / LOG).mkdir()
    with pytest.raises(RobotError, match="stays locked"):
        latch_file.acknowledge("ann", "looked")
    assert latch_file.read() == REASON


def test_where_the_reason_cannot_be_stored_motion_is_locked_all_the_same(latch_file, tmp_path):
    (tmp_path / "state" / f"{LATCH}.{os.getpid()}.writing").mkdir()
    with pytest.raises(RobotError, match="could not be stored"):
        latch_file.write(REASON)
    assert latch_file.read() is not None
    assert latch_file.is_kept()


def test_where_no_lock_could_be_written_is_known_before_one_is_needed(latch_file, tmp_path):
    assert latch_file.obstacle() == ""
    assert not list((tmp_path / "state").iterdir())
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_text("no directory")
    assert "could not be written" in latch_file.obstacle()
    assert not latch_file.is_kept()
    assert latch_file.read() is not None, "what cannot be read locks"
    with pytest.raises(RobotError, match="cannot be read"):
        latch_file.acknowledgements()


@pytest.mark.realtime
def test_a_process_killed_right_after_write_leaves_it_locked(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from robot_bridge.contracts import Latch\n"
        "from robot_bridge.safety.latch_file import LatchFile\n"
        "LatchFile(Path(sys.argv[1])).write(Latch('box', 'outside', 1.0))\n"
        "print('written', flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    with process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert LatchFile(tmp_path).read() == Latch("box", "outside", 1.0)


def test_commissioning_starts_anew_with_another_configuration(tmp_path):
    first = Commissioning(tmp_path, "aaa")
    assert first.episodes() == 0
    first.store(7)
    assert Commissioning(tmp_path, "aaa").episodes() == 7
    other = Commissioning(tmp_path, "bbb")
    assert other.episodes() == 0
    other.store(1)
    assert first.episodes() == 0


@pytest.mark.parametrize("content", ["", "[]", '{"config_hash": "aaa", "episodes": "many"}'])
def test_a_damaged_counter_means_a_new_cell(tmp_path, content):
    (tmp_path / COMMISSIONING).write_text(content)
    assert Commissioning(tmp_path, "aaa").episodes() == 0


def test_stops_that_were_cleared_are_known_to_the_next_process_for_an_hour(tmp_path, monkeypatch):
    ClearedStops(tmp_path).add((0.1, 0.2, 0.3))
    ClearedStops(tmp_path).add((0.1, 0.2, 0.3001))  # tried again
    ((age_s, place_m),) = ClearedStops(tmp_path).ages()
    assert 0.0 <= age_s < 60.0
    assert place_m == (0.1, 0.2, 0.3)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 3601.0)
    assert ClearedStops(tmp_path).ages() == []
    monkeypatch.setattr(time, "time", lambda: now_s - 7200.0)
    assert [age_s for age_s, _ in ClearedStops(tmp_path).ages()] == [0.0], "a clock that was set back forgets none"


@pytest.mark.parametrize("content", ["", "{", "7", "[[1, [0, 0]]]", "\xff"])
def test_of_a_damaged_record_nothing_is_known(tmp_path, content):
    (tmp_path / CLEARED).write_text(content, encoding="latin-1")
    assert ClearedStops(tmp_path).ages() is None


def test_what_cannot_be_noted_is_not_to_be_cleared(tmp_path):
    stops = ClearedStops(tmp_path / "state")
    (tmp_path / "state").rmdir()
    with pytest.raises(RobotError, match="waits for a person"):
        stops.add((0.0, 0.0, 0.0))
