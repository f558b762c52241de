"""A collector's cell that may not begin: it waits, delivers meanwhile, and goes on when the cause is gone."""

import contextlib
import re
import threading

import pytest

from qtopt.apps.drills.disks import small_disk
from qtopt.errors import ConfigError
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.places import STATE_VARIABLE
from sim.faults.cells import SimulatedCell, until

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(120)]


@pytest.fixture
def small(tmp_path):
    with contextlib.ExitStack() as mounted:
        try:
            yield mounted.enter_context(small_disk(tmp_path / "small", 64))
        except ConfigError as error:
            pytest.skip(str(error))


def test_a_full_disk_and_a_lock_are_waited_for(small, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    delivered = []
    with SimulatedCell("ur", tmp_path, "127.0.91.5", 0.25) as sim:
        text = re.sub(r"(?m)^dir = .*$", f'dir = "{small}"', sim.path.read_text())
        sim.path.write_text(re.sub(r"(?m)^min_free = .*$", "min_free = 0.5", text))
        cell = PhysicalCell(sim.path, 72, idle=lambda: delivered.append(1))
        with contextlib.closing(cell):
            (small / "filling").write_bytes(bytes(48 << 20))
            cell.places.latch("estop", "for the test")
            began = threading.Thread(target=cell.start_episode)
            began.start()
            assert until(lambda: delivered, 20.0)
            cell.places.latch_file.acknowledge("the test", "nothing was wrong")
            delivered.clear()
            assert until(lambda: len(delivered) > 3, 30.0)
            assert began.is_alive()
            assert sim.truth()["tool"][2] == pytest.approx(0.3, abs=0.005)  # where the simulated arm began
            (small / "filling").unlink()
            began.join(30.0)
            assert not began.is_alive()
            assert 0.15 < sim.truth()["tool"][2] < 0.21  # at an episode's start
