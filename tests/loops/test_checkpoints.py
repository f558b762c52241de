"""Checkpoints are there whole or not at all."""

from pathlib import Path

import pytest

from qtopt.errors import CheckpointError
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
    again = Checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert again.save(3, write).name == "0000000003"


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
