"""Checkpoints are there whole or not at all."""

import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

from qtopt.errors import CheckpointError
from qtopt.loops import checkpoints as module
from qtopt.loops.checkpoints import POLICY_FILE, Checkpoints, find_checkpoint


def write(directory):
    (directory / POLICY_FILE).write_bytes(b"weights")


def test_the_newest_are_kept_and_last_points_at_the_newest(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30):
        assert checkpoints.save(step, write) == tmp_path / f"{step:010d}"
    assert [path.name for path in checkpoints.all()] == ["0000000020", "0000000030"]
    assert (tmp_path / "last").resolve().name == "0000000030"


def test_a_failure_while_writing_leaves_what_was_there(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, write)

    def fail(directory):
        write(directory)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(2, fail)
    assert (tmp_path / "last" / POLICY_FILE).read_bytes() == b"weights"
    assert checkpoints.save(2, write).name == "0000000002"
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(3, fail)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    again = Checkpoints(tmp_path)
    assert again.save(3, write).name == "0000000003"


class Killed(BaseException):
    """Ends a save as SIGKILL would: nothing in it catches this."""


def dies_at(line, work):
    """Runs ``work`` and kills it before the given line of the module that it executes; whether it came so far."""
    left = [line]

    def each(frame, event, _):
        if frame.f_code.co_filename != module.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise Killed
        return each

    sys.settrace(each)
    try:
        work()
    except Killed:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("steps_before", [(), (10, 20)], ids=["first", "later"])
def test_no_moment_of_death_takes_a_checkpoint_away_or_keeps_the_next_from_being_written(tmp_path, steps_before):
    line, killed = 0, True
    while killed:
        line += 1
        shutil.rmtree(tmp_path)
        earlier = Checkpoints(tmp_path, keep=2)
        before = [earlier.save(step, write) for step in steps_before]
        killed = dies_at(line, partial(earlier.save, 30, write))
        again = Checkpoints(tmp_path, keep=2)
        finished = again.all()
        assert finished[-2:] in ([*before[-1:], tmp_path / "0000000030"], before)
        assert all((path / POLICY_FILE).read_bytes() == b"weights" for path in finished)
        if finished:
            assert find_checkpoint(tmp_path) == finished[-1]
        assert again.save(40, write) == find_checkpoint(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == []
    assert line > 25


def test_saving_a_step_twice_changes_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, write)
    assert checkpoints.save(1, lambda directory: pytest.fail("written again")).name == "0000000001"


def test_a_checkpoint_is_found_from_the_run_the_folder_or_itself(tmp_path):
    saved = Checkpoints(tmp_path / "checkpoints").save(4, write)
    for path in (tmp_path, tmp_path / "checkpoints", saved):
        assert find_checkpoint(path) == saved


def test_no_checkpoint_is_said_in_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="nothing there, expected a checkpoint"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no policy"):
        find_checkpoint(tmp_path)


def test_the_word_pretrained_means_the_policy_that_ships():
    found = find_checkpoint(Path("pretrained"))
    assert found.name == "pretrained"
    assert (found / "README.md").exists()
    assert (found / POLICY_FILE).stat().st_size > 100_000
