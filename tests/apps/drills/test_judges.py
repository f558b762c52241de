"""The drills' verdicts on their own figures: what was published passes, each figure that is not as promised fails."""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest

from qtopt.apps.drills import attacks, fleet, full_disk, guided_fuzz, kill_roles, kill_server, million
from qtopt.apps.drills.episodes import numbered_episode
from qtopt.apps.drills.link import CUT, Spell, Traffic, Weather
from qtopt.apps.drills.processes import Processes
from qtopt.apps.drills.weathers import unlike
from qtopt.apps.drills.witness import Witness
from qtopt.replay import EpisodeStore, StoreFormat

RESULTS = Path(__file__).parents[3] / "docs" / "results"


def published(name):
    return json.loads((RESULTS / name / "result.json").read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"server_mb_first_max_last": [246, 1300, 917]}, "took 1300 MB, expected 1250"),
        ({"server_mb_per_1000_episodes_at_full_speed": 7.2}, "grew by 7.2 MB"),
    ],
)
def test_a_fleet_s_memory_is_judged(change, said):
    breaches = fleet.judge_memory(published("fleet") | change, 43_393)
    assert breaches == [] if said is None else said in breaches[0]


def test_growth_is_not_judged_over_a_handful_of_episodes():
    assert fleet.judge_memory(published("fleet") | {"server_mb_per_1000_episodes_at_full_speed": 90.0}, 300) == []


@pytest.mark.parametrize(
    ("dead", "slow", "said"),
    [(1, 60, None), (3, 40, "dead clients delivered 3"), (0, 61, "slow clients delivered 61")],
)
def test_dead_clients_are_dead_and_slow_ones_slow(dead, slow, said):
    figures = {"delivered_by_dead_meanwhile": dead, "delivered_by_slow_meanwhile": slow}
    breaches = fleet.judge_odd(figures, 2, 40)
    assert breaches == [] if said is None else said in breaches[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"recovery_s_p50_p99_max": [1.0, 2.0, 31.0]}, "answered 31 s after its start"),
        ({"acknowledged": 0}, "acknowledged is 0 after 500 kills"),
        ({"sampled_and_compared": 0}, "sampled_and_compared is 0"),
    ],
)
def test_a_killed_server_s_figures_are_judged(change, said):
    breaches = kill_server.judge(published("kill-server") | change, reserve=False)
    assert breaches == [] if said is None else said in breaches[0]


def test_a_disk_that_was_never_full_is_told():
    figures = published("kill-server") | {"refused_for_want_of_room": 0}
    assert "refused_for_want_of_room is 0" in kill_server.judge(figures, reserve=True)[0]
    assert kill_server.judge(figures | {"refused_for_want_of_room": 9}, reserve=True) == []


@pytest.mark.parametrize("scene", ["reserve", "full", "read-only", "slow"])
def test_published_disks_are_as_promised(scene):
    assert full_disk.judge(published("full-disk")[scene]) == []


@pytest.mark.parametrize(
    ("scene", "change", "said"),
    [
        ("full", {"delivered_after_s": 40.0}, "delivered after 40.0 s"),
        ("full", {"refusal": "internal error"}, "does not say that nothing was stored"),
        ("full", {"said_published_again": 0}, "0 times that they are again"),
        ("slow", {"acknowledged_while_slow": 7}, "took 7 of 10"),
        ("slow", {"seconds_for_them": 0.4}, "took 10 in 0.4 s"),
    ],
)
def test_disks_that_are_not_as_promised_are_told(scene, change, said):
    assert said in full_disk.judge(published("full-disk")[scene] | change)[0]


def test_attacks_that_cost_memory_or_time_are_told():
    found = published("attacks")["attacks"]
    assert all(map(attacks.is_fine, found))
    assert not any(attacks.is_fine(each | {"server_grew_mb": 720.0}) for each in found)
    assert not any(attacks.is_fine(each | {"good_client_worst_ms": 9000}) for each in found)
    small = next(each for each in found if each["attack"] == "garbage")
    assert not attacks.is_fine(small | {"server_grew_mb": 253.2})


def traffic(passed, lost, shortest_s=math.inf):
    return Traffic(passed, lost, shortest_s)


LOSS, DELAY, DEAF = Weather(loss=0.3), Weather(delay_s=0.5), Weather(forward=False)


@pytest.mark.parametrize(
    ("spell", "took_s", "said"),
    [
        (Spell(CUT, traffic(0, 0), traffic(0, 40)), [], None),
        (Spell(CUT, traffic(0, 0), traffic(900, 0, 0.0)), [0.1], "900 packets to the server passed, expected none"),
        (Spell(CUT), [], "no packet was lost"),
        (Spell(CUT, traffic(0, 3), traffic(0, 40)), [0.1], "1 episodes were acknowledged"),
        (Spell(DEAF, traffic(0, 40), traffic(90, 0, 0.0)), [], None),
        (Spell(DEAF, traffic(0, 40), traffic(0, 90)), [], "0 packets to the server passed, expected some"),
        (Spell(LOSS, traffic(700, 310, 0.0), traffic(68, 32, 0.0)), [2.0], None),
        (Spell(LOSS, traffic(700, 310, 0.0), traffic(100, 0, 0.0)), [2.0], "0.00 of 100 packets to the server were"),
        (Spell(LOSS, traffic(500, 500, 0.0), traffic(70, 30, 0.0)), [2.0], "0.50 of 1000 packets to the collectors"),
        (Spell(LOSS, traffic(7, 3, 0.0), traffic(70, 30, 0.0)), [2.0], "10 packets came to the collectors"),
        (Spell(DELAY, traffic(90, 0, 0.5), traffic(90, 0, 0.5)), [1.1], None),
        (Spell(DELAY, traffic(90, 0, 0.5), traffic(90, 0, 0.001)), [1.1], "on its way for 0.001 s"),
        (Spell(DELAY, traffic(90, 0, 0.5), traffic(90, 0, 0.5)), [1.1, 0.2], "took 0.20 s there and back"),
        (Spell(DELAY, traffic(90, 0, 0.5), traffic(90, 0, 0.5)), [], "took 0.00 s there and back"),
    ],
)
def test_a_weather_has_to_have_happened(spell, took_s, said):
    breaches = unlike(spell, took_s)
    assert breaches == [] if said is None else said in breaches[0]


def test_trainers_that_said_nothing_are_told(tmp_path):
    with Witness([tmp_path / "spool"]) as witness, Processes(tmp_path / "logs") as processes:
        processes.log("trainer").write_text("")
        drill = kill_roles.Drill(kill_roles.Config(), tmp_path, processes, witness)
        drill.check_resumption()
        assert drill.breaches == ["0 trainers said where they began, expected 1 or more"]


@pytest.mark.drill
@pytest.mark.skipif(find_spec("atheris") is None, reason="needs the extra 'fuzz'")
def test_targets_that_were_not_fuzzed_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(guided_fuzz, "_run", lambda *given: ("INFO: nothing to do", 0))
    path = tmp_path / "result.json"
    config = guided_fuzz.Config(minutes=0.1, only=("AppendEpisode",), faults=tmp_path, room=tmp_path, json=path)
    assert guided_fuzz.main(config) == 1
    assert "no input was taken apart" in json.loads(path.read_text())["first_breaches"][0]


@pytest.mark.drill
def test_a_store_of_fewer_episodes_is_told(tmp_path):
    for size in (5, 300):
        with EpisodeStore(tmp_path / f"episodes-{size}", StoreFormat.for_images(16)) as store:
            for number in range(5):
                store.append(numbered_episode(0, number, 16, 3))
    path = tmp_path / "result.json"
    assert million.main(million.Config(root=tmp_path, sizes=(5, 300), seconds=0.1, json=path)) == 1
    assert "found 5 episodes, expected 300" in json.loads(path.read_text())["first_breaches"][0]
