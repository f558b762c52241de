"""The disk with a cell's state is full: a finished episode is kept all the same, only its count is not."""

import contextlib
import logging

import numpy as np
import pytest

from qtopt.apps.drills.disks import small_disk
from qtopt.loops.episode import run_episode
from qtopt.specs import make_action
from qtopt.types import Behaviour, Decision, Outcome
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.places import STATE_VARIABLE
from robot_bridge.spool import Spool
from sim.faults.cells import SimulatedCell
from tests.mounting import mounted_or_skipped

pytestmark = [pytest.mark.realtime, pytest.mark.drill, pytest.mark.timeout(200)]


class Gives:
    """A policy that ends every episode at once."""

    def begin_episode(self, rng):
        pass

    def select(self, observation):
        return Decision(make_action(terminate=True), Behaviour.SCRIPTED)


@pytest.fixture
def state(tmp_path, monkeypatch):
    with mounted_or_skipped(small_disk(tmp_path / "state", 1)) as state:
        monkeypatch.setenv(STATE_VARIABLE, str(state))
        yield state


def fill(path):
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_an_episode_that_cannot_be_counted_is_kept(state, tmp_path, caplog):
    def run():
        return run_episode(cell, Gives(), np.random.default_rng(0), stop=lambda: False, clock=lambda: 0.0).episode

    with (
        SimulatedCell("http", tmp_path, "127.0.91.7") as sim,
        contextlib.closing(PhysicalCell(sim.path, 72, stop=lambda: True)) as cell,
        contextlib.closing(Spool(tmp_path / "spool")) as spool,
    ):
        fill(state / "ballast")
        with caplog.at_level(logging.WARNING):
            spool.put(run())
        assert "is not counted" in caplog.text
        assert cell.places.episodes_done() == 0
        (state / "ballast").unlink()
        spool.put(run())
        assert cell.places.episodes_done() == 1
        outcomes = [spool.load(uuid).outcome for uuid in spool.pending()]
        assert outcomes == [Outcome.NOTHING_GRASPED] * 2
        assert cell.places.latched() is None
