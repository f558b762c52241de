"""The lines of a log file on disks that are full or fail: none is lost untold, in half, or written twice."""

import contextlib
import errno
import fcntl
import json
import os
import struct
import termios
from pathlib import Path

import pytest

from qtopt.apps.drills.disks import small_disk
from qtopt.rpc import logfile
from qtopt.rpc.logfile import LogFile
from tests.mounting import mounted_or_skipped
from tests.waiting import wait_until


@pytest.fixture
def disk(tmp_path):
    """A file system of 1 MB of its own."""
    with mounted_or_skipped(small_disk(tmp_path / "disk", 1)) as disk:
        yield disk


def lost_line(count):
    return json.dumps({"lost": count})


def put(file, *numbers):
    """Puts lines of some 500 bytes, and waits until the disk has taken or refused them."""
    for number in range(*numbers):
        file.put(json.dumps({"number": number, "why": "x" * 500}))
    assert file.flush()


def numbers_in(path):
    """Returns the number of each line; of one that tells how many were lost minus that."""
    return [line.get("number", -line.get("lost", 0)) for line in map(json.loads, path.read_text().splitlines())]


def fill(path, page=4096):
    """Takes all room of a disk but a page or some."""
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(page)):
                pass
        file.truncate(file.tell() - page)


def test_lines_that_a_full_disk_refuses_are_told_in_their_place(disk, caplog, capfd):
    path, ballast = disk / "lines", disk / "ballast"
    file = LogFile(path, lost_line)
    put(file, 1)
    expected, lost = [0], 0
    for begin in (1, 1001):
        fill(ballast)
        put(file, begin, begin + 200)
        kept = len(numbers_in(path)) - len(expected)  # of the one in which the disk got full nothing is left
        assert 1 < kept < 200
        assert file.lost == lost + 200 - kept
        ballast.unlink()
        put(file, begin + 200, begin + 202)
        expected += [*range(begin, begin + kept), kept - 200, begin + 200, begin + 201]
        lost = file.lost
        assert numbers_in(path) == expected
    file.close()
    assert numbers_in(path) == expected
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert os.strerror(errno.ENOSPC) in caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_an_end_tells_what_was_lost_before_it(disk):
    path, ballast = disk / "lines", disk / "ballast"
    file = LogFile(path, lost_line)
    fill(ballast)
    put(file, 200)
    ballast.unlink()
    file.close()
    kept = 200 - file.lost
    assert 0 < kept < 200
    assert numbers_in(path) == [*range(kept), -file.lost]


def test_a_disk_that_refuses_everything_is_told_once_and_every_line_counted(caplog, capfd):
    file = LogFile(Path("/dev/full"), lost_line)
    put(file, 20)
    assert file.lost == 20
    file.close()
    assert file.lost == 20
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert os.strerror(errno.ENOSPC) in caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_a_half_line_that_cannot_be_taken_back_does_not_run_into_the_next(tmp_path):
    """A pipe takes nothing back, and keeps what was written for who opens it next."""
    path = tmp_path / "lines"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    size = fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    file = LogFile(path, lost_line)
    file.put("x" * 10 * size)
    wait_until(lambda: struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0] == size)
    os.close(reader)
    assert file.flush()
    assert file.lost == 1
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file.put("next")
    os.set_blocking(reader, True)
    found = b""
    while not found.endswith(b"next\n"):
        found += os.read(reader, size)
    file.close()
    os.close(reader)
    half, *whole = found.decode().splitlines()
    assert (set(half), whole) == ({"x"}, [lost_line(1), "next"])


def test_full_files_are_put_aside_and_the_oldest_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(logfile, "FILE_BYTES", 2000)
    monkeypatch.setattr(logfile, "FILES", 2)
    file = LogFile(tmp_path / "lines", lost_line)
    put(file, 10)
    file.close()
    found = {path.name: numbers_in(path) for path in tmp_path.iterdir()}
    assert found == {"lines": [9], "lines.1": [6, 7, 8], "lines.2": [3, 4, 5]}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_half_line_that_was_left_behind_does_not_run_into_the_next(tmp_path):
    path = tmp_path / "lines"
    path.write_text('{"number": 0}\n{"numb')
    file = LogFile(path, lost_line)
    put(file, 1, 3)
    file.close()
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"number": 0}', '{"numb']
    assert [json.loads(line)["number"] for line in lines[2:]] == [1, 2]
    again = LogFile(path, lost_line)
    put(again, 3, 4)
    again.close()
    assert path.read_text().splitlines()[:4] == lines  # no empty line where it ends as it should
