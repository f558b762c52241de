"""A store in a dictionary: the least that satisfies ReplayStore, for tests of the transport rather than of storage."""

import threading
import time

import numpy as np

from qtopt.errors import EpisodeConflict, ServerUnavailable, StoreFull
from qtopt.types import LabelledBatch, Observations, Targets, Transitions


class DictStore:
    """Keeps episodes by UUID; a transition's position is its row in the order of appending."""

    def __init__(self, room: int = 1000):
        self.episodes = {}
        self.targets = {}
        self.room = room
        self.lock = threading.Lock()

    def append(self, episode, digest=None):
        with self.lock:
            known = self.episodes.get(episode.uuid)
            if known is not None:
                if not np.array_equal(known.actions, episode.actions):
                    raise EpisodeConflict(f"episode {episode.uuid} is known with other content")
                return False
            if len(self.episodes) >= self.room:
                raise StoreFull(f"the store holds {self.room} episodes, its most")
            self.episodes[episode.uuid] = episode
            return True

    def _rows(self):
        return [(episode, row) for episode in self.episodes.values() for row in range(len(episode))]

    def sample_transitions(self, count, timeout_s):
        deadline = time.monotonic() + timeout_s
        while not (rows := self._rows()):
            if time.monotonic() >= deadline:
                raise ServerUnavailable("the store is empty: start a collector")
            time.sleep(0.01)
        position = np.arange(count, dtype=np.int64) % len(rows)
        drawn = [rows[index] for index in position]
        return Transitions(
            position=position,
            reward=np.array([episode.rewards[row] for episode, row in drawn], np.float32),
            terminal=np.array([row + 1 == len(episode) for episode, row in drawn]),
            next=self._observations([(episode, row + 1) for episode, row in drawn]),
            steps_left=np.array([len(episode) - 1 - row for episode, row in drawn], np.int64),
            success=np.array([episode.success for episode, _ in drawn]),
        )

    def put_targets(self, targets: Targets):
        with self.lock:
            for position, value in zip(targets.position, targets.value, strict=True):
                self.targets[int(position)] = (float(value), targets.model_version)

    def sample_labelled(self, count, timeout_s):
        rows, labels = self._rows(), sorted(self.targets)
        if not labels:
            time.sleep(timeout_s)
            raise ServerUnavailable("no labels yet: start an updater")
        position = np.array([labels[index % len(labels)] for index in range(count)], np.int64)
        drawn = [rows[index] for index in position]
        return LabelledBatch(
            position=position,
            observation=self._observations(drawn),
            action=np.stack([episode.actions[row] for episode, row in drawn]),
            tool_pose=np.stack([episode.tool_pose[row] for episode, row in drawn]),
            target=np.array([self.targets[index][0] for index in position], np.float32),
            model_version=np.array([self.targets[index][1] for index in position], np.int64),
            age_s=np.zeros(count, np.float32),
        )

    def sample_transition_frames(self, count, timeout_s):
        return self.sample_transitions(count, timeout_s), None

    def sample_labelled_frames(self, count, timeout_s):
        return self.sample_labelled(count, timeout_s), None

    def stats(self):
        return {"episodes": len(self.episodes), "waiting_for": "nobody"}

    @staticmethod
    def _observations(drawn):
        return Observations(
            image=np.stack([episode.images[row] for episode, row in drawn]),
            gripper_closed=np.array([episode.gripper_closed[row] for episode, row in drawn]),
            height_to_bottom=np.array([episode.height_to_bottom[row] for episode, row in drawn], np.float32),
        )


class GatedStore(DictStore):
    """A store whose disk does nothing until ``gate`` is set; notes whose episodes it began with, in order."""

    def __init__(self):
        super().__init__()
        self.gate, self.begun, self._one = threading.Event(), [], threading.Lock()

    def append(self, episode, digest=None):
        with self._one:
            self.begun.append(episode.collector)
        self.gate.wait(60.0)  # a test that has failed ends all the same
        return super().append(episode)
