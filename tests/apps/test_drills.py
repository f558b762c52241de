"""Small versions of the drills: the same code over few rounds."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from qtopt.apps.drills.audit import Audit, Ledger
from qtopt.apps.drills.episodes import Checker, numbered_episode
from qtopt.replay import EpisodeStore, ReplayConfig, RetentionConfig, StoreFormat
from qtopt.replay.landing_log import LANDING
from tests.replay.landed import spoil_frame


def drill(tmp_path, *words):
    """Runs a drill in a process of its own; returns its exit code and what it found."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, words), "--json", str(tmp_path / "result.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert json.loads((tmp_path / "result.json").read_text()).items() >= found.items()
    return done.returncode, found


@pytest.mark.drill
def test_killed_servers_lose_nothing(tmp_path):
    code, found = drill(tmp_path, "qtopt.apps.drills.kill_server", "--times", 3, "--root", tmp_path / "drill")
    assert (code, found["breaches"]) == (0, 0), found
    assert sum(found["deaths_by"].values()) == 4
    assert found["acknowledged"] > 0
    assert found["sampled_and_compared"] > 0


@pytest.mark.drill
def test_a_store_of_many_small_episodes_opens_and_is_sampled(tmp_path):
    words = ("--root", tmp_path / "stores", "--sizes", 300, 2000, "--seconds", 0.2)
    _, found = drill(tmp_path, "qtopt.apps.drills.million", *words)  # its limits are for a quiet machine
    assert found["store_2000"]["episodes"] == 2000
    assert found["store_2000"]["landed_steps"] == 800
    assert found["transitions_per_s_large"] > 0


def served(tmp_path, ledger, numbers, **retention):
    config = ReplayConfig(retention=RetentionConfig(**retention))
    with EpisodeStore(tmp_path / "store", StoreFormat.for_images(16), config) as store:
        for number in numbers:
            store.append(numbered_episode(0, number, 16))
            store.seal()
        store.retire()
    return Audit(tmp_path / "store", ledger, 16)


def sent(acknowledged, begun):
    ledger = Ledger(1)
    for _ in range(acknowledged):
        ledger.begin(0)
        ledger.acknowledged(0, is_new=True)
    if begun > acknowledged:
        ledger.begin(0)
    return ledger


@pytest.mark.parametrize(
    ("numbers", "acknowledged", "begun", "said"),
    [
        (range(5), 5, 5, None),
        (range(5), 4, 5, None),  # stored, and killed before the acknowledgement
        (range(5), 5, 6, None),  # killed before it was stored
        (range(4), 5, 5, "expected 0 to 4, each once"),
        ((0, 1, 3, 4), 5, 5, "expected 0 to 4, each once"),
        (range(1, 5), 5, 5, "1 episodes are missing, 0 were retired"),
        (range(6), 5, 5, "was never sent"),
    ],
)
def test_the_audit_finds_what_is_missing(tmp_path, numbers, acknowledged, begun, said):
    found = served(tmp_path, sent(acknowledged, begun), numbers).check()
    assert found == [] if said is None else any(said in breach for breach in found)


def test_the_audit_counts_what_was_retired(tmp_path):
    assert served(tmp_path, sent(5, 5), range(5), max_gb=1e-9).check() == []


def test_the_audit_finds_other_content(tmp_path):
    audit = served(tmp_path, sent(2, 2), [])
    with EpisodeStore(tmp_path / "store") as store:
        store.append(numbered_episode(0, 0, 16))
        store.append(replace(numbered_episode(0, 1, 16), rewards=np.zeros(2, np.float32)))
    assert audit.check() == ["episode 1 of sender 0 is not what was sent"]


@pytest.fixture
def landed(tmp_path):
    """A closed store of ten landed episodes, all acknowledged, and who audits it."""
    with EpisodeStore(tmp_path / "store", StoreFormat.for_images(16), ReplayConfig(seal_after_s=0)) as store:
        for number in range(10):
            store.append(numbered_episode(0, number, 16))
    return tmp_path / "store", lambda **kind: Audit(tmp_path / "store", sent(10, 10), 16, **kind)


@pytest.mark.parametrize("cut_off", [False, True])
@pytest.mark.parametrize("numbers", [(0,), (3, 4, 9), range(10)], ids=["first", "some", "all"])
def test_the_audit_finds_what_the_server_itself_gave_up(landed, numbers, cut_off):
    """Rotten before the seal, they are quarantined before anybody audits."""
    path, audit = landed
    with EpisodeStore(path, config=ReplayConfig(seal_after_s=0)) as store:
        for number in numbers:
            spoil_frame(store, store._shelf.episode(numbered_episode(0, number, 16).uuid).first_position)
        store.seal()
        assert store.stats()["quarantined"] == len(numbers)
    found = audit(cut_off=cut_off).check()
    assert "each once" in found[0] or "are missing, 0 were retired" in found[0], found
    assert sum("damaged: " in breach for breach in found) == len(numbers)


def test_the_audit_finds_what_was_quarantined_and_stored_again(landed):
    path, audit = landed
    with EpisodeStore(path, config=ReplayConfig(seal_after_s=0)) as store:
        spoil_frame(store, 0)
        store.seal()
        assert store.append(numbered_episode(0, 0, 16))
    assert any("stored again" in breach for breach in audit().check())


def test_the_audit_finds_what_the_log_left_out(landed):
    path, audit = landed
    with next((path / LANDING).iterdir()).open("ab") as log:
        log.write(bytes(range(1, 100)))
    assert [breach for breach in audit().check() if "bytes" in breach]
    assert audit(cut_off=True).check() == []  # a disk that is taken away leaves such pieces


def test_a_torn_sample_is_noticed(tmp_path, rng):
    audit = served(tmp_path, sent(5, 5), range(5))
    assert audit.check() == []
    with EpisodeStore(tmp_path / "store", rng=rng) as store:
        drawn = store.sample_transitions(64, 0.0)
    assert Checker(16).torn_transitions(drawn) == 0
    row = int(np.flatnonzero(~drawn.terminal)[0])
    image = drawn.next.image.copy()
    image[row, 15, 15, 2] ^= 1
    assert Checker(16).torn_transitions(replace(drawn, next=replace(drawn.next, image=image))) == 1
    reward = drawn.reward.copy()
    reward[row] += 1
    assert Checker(16).torn_transitions(replace(drawn, reward=reward)) == 1
