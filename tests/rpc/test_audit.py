"""The audit log on a disk that hangs: a pipe that nobody reads blocks who writes to it, as such a disk does."""

import fcntl
import json
import os
import threading
import time

import pytest

from qtopt.errors import AccessDenied
from qtopt.rpc import Audit, BackgroundServer, Services, connect, logfile
from qtopt.rpc.roles import make_identity
from tests.rpc.conftest import SIZE
from tests.rpc.secured import client_of, listening
from tests.rpc.stores import DictStore
from tests.waiting import wait_until

ARM = make_identity("arm-0", "collector")


@pytest.fixture
def hanging(tmp_path):
    """An audit log's path, and what takes so many lines from it."""
    path = tmp_path / "audit.jsonl"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(reader, "rb", buffering=0) as file:
        text = bytearray()

        def take(count):
            def enough():
                text.extend(file.read(1 << 20) or b"")
                return text.count(b"\n") >= count

            wait_until(enough, 10.0)
            return [json.loads(line) for line in text.splitlines()]

        yield path, take


def tell(audit, *numbers):
    """Refuses calls; the lines of seven fill the pipe."""
    for number in range(*numbers):
        audit.refused(ARM, "10.0.0.1:1", f"method {number}", "x" * 400)


def test_a_disk_that_hangs_holds_up_no_call_and_gets_every_line_in_order(keys, tmp_path, hanging):
    path, take = hanging
    audit = Audit(path)
    with BackgroundServer(listening(tmp_path), Services(SIZE, DictStore, audit=audit)) as server:
        with connect(client_of(server, tmp_path, "viewer")) as viewer:
            for _ in range(30):
                with pytest.raises(AccessDenied, match="Publish is for trainer"):
                    viewer.model.publish(1, b"weights")
            begun_s = time.monotonic()
            assert viewer.replay.stats()["episodes"] == 0
            assert time.monotonic() - begun_s < 5.0
        assert server.figures()["audit_lines_waiting"] > 10
        assert server.figures()["audit_lines_lost"] == 0
        tell(audit, 1)
        lines = take(31)
        assert [line["what"] for line in lines] == 30 * ["/qtopt.v1.ModelService/Publish"] + ["method 0"]
        wait_until(lambda: server.figures()["audit_lines_waiting"] == 0)
    audit.close()


def test_lines_for_which_there_is_no_room_are_counted_in_their_place(hanging, monkeypatch, caplog):
    path, take = hanging
    monkeypatch.setattr(logfile, "MOST_WAITING", 20)
    audit = Audit(path)
    tell(audit, 20)
    time.sleep(1.0)
    room = 20 - int(audit.figures()["audit_lines_waiting"])
    assert 0 < room < 10  # as many as the pipe has taken
    tell(audit, 20, 50)
    lost = audit.figures()["audit_lines_lost"]
    assert lost == 30 - room
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "20 lines wait for the disk" in caplog.text
    kept = 20 + room
    take(kept)
    audit.flush()
    audit.refused(ARM, "10.0.0.1:1", "later", "why")
    lines = take(kept + 2)
    assert [line.get("what") for line in lines] == [f"method {number}" for number in range(kept)] + [None, "later"]
    assert (lines[-2]["event"], lines[-2]["lines"]) == ("lost", lost)
    audit.close()


def test_an_end_writes_what_waits_and_does_not_wait_for_a_dead_disk_for_ever(hanging, tmp_path, monkeypatch, caplog):
    audit = Audit(tmp_path / "sound.jsonl")
    tell(audit, 500)
    audit.close()
    lines = [json.loads(line) for line in (tmp_path / "sound.jsonl").read_text().splitlines()]
    assert [line["what"] for line in lines] == [f"method {number}" for number in range(500)]
    monkeypatch.setattr(logfile, "CLOSES_WITHIN_S", 0.2)
    audit = Audit(hanging[0])
    tell(audit, 50)
    audit.close()
    assert "lines were not written, for the disk does not take them" in caplog.text
    hanging[1](50)
    wait_until(lambda: all(thread.name != "log file" for thread in threading.enumerate()))
