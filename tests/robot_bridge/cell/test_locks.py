"""What the collector remembers of a lock, whatever becomes of the disk."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from robot_bridge.cell.locks import Locks
from robot_bridge.contracts import Latch
from robot_bridge.safety.latch_file import LatchFile

TOLD = Latch("emergency_stop", "the arm is in emergency_stop", 1.0)


class Disk:
    """A directory for a latch, which can be made unusable for everybody, root included, and well again."""

    def __init__(self, directory: Path):
        self.directory, self._aside = directory, directory.with_name("aside")
        self.file = LatchFile(directory)

    def fail(self):
        self.directory.rename(self._aside)
        self.directory.write_text("no directory")

    def mend(self):
        self.directory.unlink()
        self._aside.rename(self.directory)


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path / "state")


@pytest.fixture
def locks(disk):
    def latch(rule, reason):
        if not disk.file.obstacle():
            disk.file.write(Latch(rule, reason, 0.0))

    locks = Locks(SimpleNamespace(latch_file=disk.file, latch=latch))
    locks.begin(disk.file.acknowledgements())
    return locks


def test_nothing_locks_where_nothing_was_told(locks):
    assert locks.pending(None) is None


def test_what_was_told_is_pending_until_it_was_written_and_acknowledged(locks, disk):
    disk.fail()
    assert locks.pending(TOLD) == TOLD
    assert "could not be stored" in locks.keep(TOLD)
    disk.mend()
    assert locks.pending(TOLD) == TOLD, "a disk that is well again is no acknowledgement"
    assert locks.keep(TOLD) == ""
    assert disk.file.read() == TOLD
    disk.file.acknowledge("ann", "looked")
    assert locks.pending(TOLD) is None


def test_a_lock_that_its_process_wrote_and_a_person_acknowledged_unseen_is_over(locks, disk):
    disk.file.write(TOLD)
    disk.file.acknowledge("ann", "looked")
    assert locks.pending(TOLD) is None


def test_a_directory_that_cannot_be_read_locks_for_as_long_as_that_is_so(locks, disk):
    disk.fail()
    unreadable = locks.pending(None)
    assert unreadable is not None
    locks.keep(unreadable)
    disk.mend()
    assert locks.keep(unreadable) == ""
    assert locks.pending(None) is None


def test_an_older_acknowledgement_is_none(locks, disk):
    disk.file.write(TOLD)
    disk.file.acknowledge("ann", "looked")
    locks.begin(disk.file.acknowledgements())
    assert locks.pending(TOLD) == TOLD


def test_a_latch_that_was_deleted_by_hand_is_written_again(locks, disk):
    disk.file.write(TOLD)
    (disk.directory / "latch.json").unlink()
    assert locks.pending(TOLD) == TOLD
    assert locks.keep(TOLD) == ""
    assert disk.file.is_kept()


def test_the_collectors_own_lock_is_remembered_too(locks, disk):
    disk.fail()
    locks.lock("no_episode", "three times")
    disk.mend()
    own = locks.pending(None)
    assert own is not None
    assert own.rule == "no_episode"
    assert locks.keep(own) == ""
    disk.file.acknowledge("ann", "looked")
    assert locks.pending(None) is None


def test_a_log_that_was_made_shorter_costs_a_second_acknowledgement(locks, disk):
    for _ in range(2):
        disk.file.write(TOLD)
        disk.file.acknowledge("ann", "looked")
    locks.begin(disk.file.acknowledgements())
    disk.file.write(TOLD)
    (disk.directory / "acknowledgements.jsonl").write_text("")
    disk.file.acknowledge("ann", "looked")
    assert locks.pending(TOLD) == TOLD
    assert locks.keep(TOLD) == ""
    disk.file.acknowledge("ann", "looked")
    assert locks.pending(TOLD) is None
