"""Children are restarted, given up on, and ended; none survives."""

import time
from pathlib import Path

import pytest

from qtopt.apps.supervisor import Supervisor, last_line
from qtopt.errors import ProcessFailed


def watch_until(supervisor, done, **settings):
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        supervisor.watch(**settings)
        time.sleep(0.05)


def test_a_wrong_setting_ends_the_run_at_once_and_names_the_log(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        supervisor.start("bad", ["fly"])
        with pytest.raises(ProcessFailed, match=r"bad ended with code 2, 1 time.*found the command 'fly'.*bad\.log"):
            watch_until(supervisor, lambda: False)


def test_a_child_that_dies_is_restarted_until_it_is_too_often(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        child = supervisor.start("short", ["--version"])
        watch_until(supervisor, lambda: len(child.deaths) == 1)
        with pytest.raises(ProcessFailed, match="short ended with code 0, 2 time"):
            watch_until(supervisor, lambda: False, most_deaths=2)
    assert (tmp_path / "short.log").read_text().count("qtopt ") == 2


def test_a_child_that_runs_once_is_forgotten(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        supervisor.start("once", ["--version"], nice=1)
        watch_until(supervisor, lambda: not supervisor.children, once=True)


def test_leaving_kills_what_still_runs(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        serve = ["serve", "--listen.port", "0", "--store", str(tmp_path / "s"), "--models", str(tmp_path / "m")]
        child = supervisor.start("server", serve, nice=3)
        process = child.process
        assert child.running()
        session = Path(f"/proc/{process.pid}/autogroup")
        if session.exists() and session.read_text().strip():
            assert session.read_text().strip().endswith("nice 3")
    assert process.poll() is not None


def test_stop_ends_the_named_ones_and_forgets_them(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        supervisor.start("a-1", ["doctor"])
        supervisor.start("b-1", ["doctor"])
        process = supervisor.children["b-1"].process
        supervisor.stop(["a-1"], 5.0)
        assert list(supervisor.children) == ["b-1"]
        supervisor.stop_all([(("b",), 5.0)])
        assert supervisor.children == {}
        assert process.poll() is not None


def test_last_words(tmp_path):
    assert last_line(tmp_path / "none.log") == ""
    (tmp_path / "a.log").write_text("first\nlast\n\n")
    assert last_line(tmp_path / "a.log") == "last"
