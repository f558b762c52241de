"""What the drills' verdicts rest on: a witness that misses nothing, and comparisons that find what is wrong."""

from contextlib import closing
from dataclasses import replace

import pytest

from qtopt.apps.drills.arrivals import compare
from qtopt.apps.drills.curve import compare_lives
from qtopt.apps.drills.witness import Witness
from qtopt.replay import EpisodeStore, StoreFormat
from robot_bridge.spool import Spool
from tests.episodes import make_episode
from tests.replay.landed import spoil_frame
from tests.waiting import wait_until


@pytest.fixture
def scene(tmp_path, rng):
    """A spool called arm, a store, four episodes of the arm, and a function that delivers the given ones."""
    episodes = [replace(make_episode(rng, 2), collector="arm") for _ in range(4)]
    store = tmp_path / "store"

    def deliver(chosen):
        with EpisodeStore(store, StoreFormat.for_images(16)) as opened:
            for episode in chosen:
                opened.append(episode)

    return tmp_path / "arm", store, episodes, deliver


def test_a_witness_tells_what_was_kept_what_went_and_what_waits(scene):
    place, store, episodes, deliver = scene
    with Witness([place]) as witness, closing(Spool(place)) as spool:
        for episode in episodes:
            spool.put(episode)
        for episode in episodes[:3]:
            spool.delivered(episode.uuid)
        wait_until(lambda: (witness.finished, witness.delivered, witness.waiting) == (4, 3, 1))
    deliver(episodes)
    figures, breaches = compare(witness, store)
    assert figures == {"finished": 4, "stored": 4, "lost": 0, "stored_twice": 0, "still_waiting": 1}
    assert breaches == []


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ((0, 1, 2), "was finished and is not stored"),
        ((0, 2, 1, 3), "in another order"),
        ((0, 1, 2, 3, 4), "nobody finished it"),
    ],
)
def test_a_loss_a_swap_and_a_stranger_are_found(scene, rng, order, said):
    place, store, episodes, deliver = scene
    with Witness([place]) as witness, closing(Spool(place)) as spool:
        for episode in episodes:
            spool.put(episode)
            spool.delivered(episode.uuid)
        wait_until(lambda: witness.delivered == 4)
    stranger = replace(make_episode(rng, 2), collector="arm")
    deliver([[*episodes, stranger][number] for number in order])
    assert any(said in breach for breach in compare(witness, store)[1])


def test_what_the_server_gave_up_is_found(scene):
    """One that is rotten before the seal is quarantined before anybody compares."""
    place, store, episodes, deliver = scene
    with Witness([place]) as witness, closing(Spool(place)) as spool:
        for episode in episodes:
            spool.put(episode)
            spool.delivered(episode.uuid)
        wait_until(lambda: witness.delivered == 4)
    deliver(episodes)
    with EpisodeStore(store) as opened:
        spoil_frame(opened, 0)
        opened.seal()
    figures, breaches = compare(witness, store)
    assert (figures["stored"], figures["lost"]) == (3, 1)
    assert f"{episodes[0].uuid} was finished and is not stored" in breaches
    assert any(breach.startswith(f"damaged: {episodes[0].uuid}") for breach in breaches)


def lives(path, *, fresh):
    """Writes the journal of a trainer that learns, dies after step 450, goes on from 400: as it was, or afresh."""
    lines = ["life", *(f"{step} {max(0.1, 2 - step / 50)}" for step in range(1, 451)), "320 saved", "400 saved"]
    lines += ["life", *(f"{step} {1.5 if fresh else 0.1}" for step in range(401, 500))]
    path.write_text("\n".join(lines) + "\n")


def test_a_loss_that_goes_on_where_it_was_is_no_breach_and_one_that_jumps_is(tmp_path):
    lives(tmp_path / "steps", fresh=False)
    figures, breaches = compare_lives(tmp_path / "steps")
    assert breaches == []
    assert (figures["restarts_compared"], figures["checkpoints_compared"]) == (1, 2)
    assert figures["loss_change_at_restarts"]["max"] == pytest.approx(0.0, abs=1e-6)
    lives(tmp_path / "steps", fresh=True)
    assert "the loss rose by 1.400" in compare_lives(tmp_path / "steps")[1][0]
