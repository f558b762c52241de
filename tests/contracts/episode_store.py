"""What every store does: in memory, on disk, over gRPC.

A subclass gives a fixture ``store``: an empty store of images of ``SIZE_PX``.
"""

import dataclasses
import threading
import time

import numpy as np
import pytest

from qtopt.errors import EpisodeConflict, SchemaMismatch, ServerUnavailable
from qtopt.types import EpisodeEnd, Outcome, Targets
from tests.episodes import make_episode

SIZE_PX = 16


def by_position(episodes):
    """Returns (episode, row) for each position of a store that the episodes were appended to in this order."""
    return [(episode, row) for episode in episodes for row in range(len(episode) + 1)]


class EpisodeStoreContract:
    """Behaviour of EpisodeSink, TransitionSource, TargetSink and BatchSource together."""

    @pytest.fixture
    def episodes(self, rng):
        return [make_episode(rng, steps, size_px=SIZE_PX, success=steps % 2 == 0) for steps in (1, 2, 3, 5, 8, 20)]

    @pytest.fixture
    def filled(self, store, episodes):
        for episode in episodes:
            assert store.append(episode) is True
        return store

    def test_an_episode_is_stored_once(self, filled, episodes):
        for episode in episodes:
            assert filled.append(episode) is False
        assert filled.stats()["episodes"] == len(episodes)

    def test_a_known_uuid_with_other_content_is_refused(self, filled, episodes):
        changed = episodes[2].rewards.copy()
        changed[0] += 0.5
        with pytest.raises(EpisodeConflict, match=episodes[2].uuid):
            filled.append(dataclasses.replace(episodes[2], rewards=changed))
        assert filled.append(episodes[2]) is False

    def test_one_changed_pixel_is_other_content(self, filled, episodes):
        images = episodes[1].images.copy()
        images[-1, 3, 4, 1] ^= 1
        with pytest.raises(EpisodeConflict):
            filled.append(dataclasses.replace(episodes[1], images=images))

    def test_an_episode_of_another_size_is_refused(self, store, rng):
        with pytest.raises(SchemaMismatch, match="32"):
            store.append(make_episode(rng, size_px=32))

    def test_transitions_are_those_of_the_episodes(self, filled, episodes):
        table = by_position(episodes)
        drawn = filled.sample_transitions(400, 5.0)
        assert len(drawn) == 400
        assert drawn.position.dtype == np.int64
        for index, position in enumerate(drawn.position.tolist()):
            episode, row = table[position]
            assert row < len(episode)
            assert drawn.reward[index] == episode.rewards[row]
            assert drawn.terminal[index] == (row == len(episode) - 1)
            assert drawn.steps_left[index] == len(episode) - 1 - row
            assert drawn.success[index] == episode.success
            if not drawn.terminal[index]:
                assert np.array_equal(drawn.next.image[index], episode.images[row + 1])
                assert drawn.next.gripper_closed[index] == episode.gripper_closed[row + 1]
                assert drawn.next.height_to_bottom[index] == episode.height_to_bottom[row + 1]

    def test_every_transition_is_drawn(self, filled, episodes):
        table = by_position(episodes)
        expected = {position for position, (episode, row) in enumerate(table) if row < len(episode)}
        drawn = np.concatenate([filled.sample_transitions(500, 5.0).position for _ in range(3)])
        assert set(drawn.tolist()) == expected

    def test_an_undecided_episode_is_kept_but_never_drawn(self, store, rng):
        aborted = dataclasses.replace(make_episode(rng, 4, size_px=SIZE_PX), outcome=Outcome.ABORTED)
        unknown = dataclasses.replace(make_episode(rng, 4, size_px=SIZE_PX), outcome=Outcome.UNKNOWN)
        sound = make_episode(rng, 4, size_px=SIZE_PX)
        for episode in (aborted, sound, unknown):
            assert store.append(episode)
        assert set(store.sample_transitions(100, 5.0).position.tolist()) == {5, 6, 7, 8}

    def test_the_step_limit_ends_an_episode(self, store, rng):
        timed_out = dataclasses.replace(
            make_episode(rng, 3, size_px=SIZE_PX, success=False), end=EpisodeEnd.TRUNCATED, outcome=Outcome.TIMED_OUT
        )
        store.append(timed_out)
        drawn = store.sample_transitions(50, 5.0)
        assert np.array_equal(drawn.terminal, drawn.position == 2)

    def test_an_empty_store_says_so_in_time(self, store):
        started = time.monotonic()
        with pytest.raises(ServerUnavailable):
            store.sample_transitions(1, 0.2)
        with pytest.raises(ServerUnavailable):
            store.sample_labelled(1, 0.2)
        assert time.monotonic() - started < 5.0

    def test_who_waits_is_woken_by_the_first_episode(self, store, episodes):
        later = threading.Timer(0.2, lambda: store.append(episodes[3]))
        later.start()
        try:
            assert len(store.sample_transitions(4, 20.0)) == 4
        finally:
            later.join()

    def test_labels_come_back_with_their_transitions(self, filled, episodes):
        table = by_position(episodes)
        drawn = filled.sample_transitions(40, 5.0)
        values = (drawn.position % 7 / 7).astype(np.float32)
        filled.put_targets(Targets(drawn.position, values, 11))
        batch = filled.sample_labelled(200, 5.0)
        assert len(batch) == 200
        assert set(batch.position.tolist()) <= set(drawn.position.tolist())
        assert np.array_equal(batch.target, (batch.position % 7 / 7).astype(np.float32))
        assert (batch.model_version == 11).all()
        assert (batch.age_s >= 0).all()
        assert (batch.age_s < 60).all()
        for index, position in enumerate(batch.position.tolist()):
            episode, row = table[position]
            assert np.array_equal(batch.observation.image[index], episode.images[row])
            assert batch.observation.gripper_closed[index] == episode.gripper_closed[row]
            assert batch.observation.height_to_bottom[index] == episode.height_to_bottom[row]
            assert np.array_equal(batch.action[index], episode.actions[row])
            assert np.array_equal(batch.tool_pose[index], episode.tool_pose[row])

    def test_the_newest_label_of_a_transition_wins(self, filled):
        position = np.array([0, 2], np.int64)
        filled.put_targets(Targets(position, np.array([0.1, 0.2], np.float32), 1))
        filled.put_targets(Targets(position[:1], np.array([0.9], np.float32), 2))
        batch = filled.sample_labelled(50, 5.0)
        found = {
            (p, round(float(t), 3), v)
            for p, t, v in zip(batch.position, batch.target, batch.model_version, strict=True)
        }
        assert found == {(0, 0.9, 2), (2, 0.2, 1)}

    def test_labels_of_what_is_not_there_are_dropped_and_counted(self, filled):
        # Row 1 is the last observation of the first episode, where no action was taken.
        gone = np.array([1, -5, 10**9], np.int64)
        filled.put_targets(Targets(gone, np.zeros(3, np.float32), 1))
        with pytest.raises(ServerUnavailable):
            filled.sample_labelled(1, 0.1)
        assert filled.stats()["labels_dropped"] == 3

    def test_the_figures_count(self, filled, episodes):
        filled.put_targets(Targets(np.array([0], np.int64), np.zeros(1, np.float32), 4))
        stats = filled.stats()
        assert stats["transitions"] == sum(map(len, episodes))
        assert stats["successes"] == sum(episode.success for episode in episodes)
        assert stats["labels"] == 1
        assert stats["label_version_max"] == 4
        assert stats["label_age_p95_s"] >= 0
        assert stats["limiter"] == "nobody waits"

    def test_many_threads_at_once(self, store, rng):
        episodes = [make_episode(rng, 3, size_px=SIZE_PX) for _ in range(24)]
        faults = []

        def deliver(own):
            try:
                for episode in own:
                    store.append(episode)
                    drawn = store.sample_transitions(8, 10.0)
                    store.put_targets(Targets(drawn.position, np.full(8, 0.5, np.float32), 1))
                    store.sample_labelled(8, 10.0)
            except Exception as error:  # told to the test's own thread
                faults.append(error)

        threads = [threading.Thread(target=deliver, args=(episodes[number::4],)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults
        assert store.stats()["episodes"] == 24
