"""The drills themselves, small: a few kills, two short spells of weather, a handful of collectors."""

import json

import pytest

from qtopt.apps.drills import fleet, kill_roles, network
from qtopt.apps.drills.link import can_link

pytestmark = [pytest.mark.realtime, pytest.mark.drill]


@pytest.fixture
def result(tmp_path):
    """Reads what a drill wrote."""
    path = tmp_path / "result.json"
    return path, lambda: json.loads(path.read_text())


def test_roles_that_are_killed_go_on_and_every_episode_arrives_once(tmp_path, result):
    path, read = result
    assert kill_roles.main(kill_roles.Config(times=1, steps=1, spread_s=0.5, root=tmp_path, json=path)) == 0
    found = read()
    assert found["kills"] == {"server": 1, "trainer": 1, "updater": 1, "collector": 1}
    assert found["finished"] == found["stored"] > 0
    assert found["gradient_steps"] > 0


@pytest.mark.skipif(not can_link(), reason="needs root, network namespaces and TUN devices")
def test_a_replaced_server_behind_a_cut_link_gets_every_episode_once(tmp_path, result):
    path, read = result
    config = network.Config(
        collectors=2, every_s=0.2, image_px=16, only=("server_replaced_while_cut",), root=tmp_path, json=path
    )
    assert network.main(config) == 0
    found = read()
    assert found["server_replaced_while_cut"]["most_waiting"] >= 2
    assert found["finished"] == found["stored"] > 0


def test_a_fleet_with_slow_and_dead_ones_loses_nothing(tmp_path, result):
    path, read = result
    config = fleet.Config(
        collectors=4,
        image_px=32,
        pace=60,
        paced_s=1,
        full_s=1,
        disk_s=0.2,
        odd=1,
        processes=2,
        root=tmp_path,
        json=path,
    )
    fleet.main(config)  # how fast it is is not asked here
    found = read()
    assert found["finished"] == found["stored"] > 0
    assert (found["stored_twice"], found["still_waiting"], found["delivered_by_dead_meanwhile"]) == (0, 0, 0)
    assert found["full_speed"]["episodes_per_s"] > 0
