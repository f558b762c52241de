"""Labelling and training over a real store, with the real networks."""

import itertools
import math
import threading

import numpy as np
import pytest
import torch

from qtopt.agent import targets
from qtopt.agent.cem import CemConfig
from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.agent.snapshot import unpack
from qtopt.errors import ConfigError, ServerUnavailable
from qtopt.loops.checkpoints import Checkpoints
from qtopt.loops.label import LabelLoopConfig, label
from qtopt.loops.train import TrainLoopConfig, train
from qtopt.types import Targets

CEM = CemConfig(samples=8, elites=2, iterations=2)
BATCH = 8


def build(snapshot):
    networks = unpack(snapshot.payload)
    generator = torch.Generator().manual_seed(0)

    def compute(transitions, version):
        return targets.label(
            networks.theta1,
            networks.theta2,
            transitions,
            version,
            config=targets.TargetConfig(),
            cem=CEM,
            generator=generator,
        )

    return compute


@pytest.fixture(scope="module")
def learner():
    return Learner(LearnerConfig(batch=BATCH), seed=0)


def labels(store, models, turns, *, source=None):
    config = LabelLoopConfig(batch_size=16, refresh_every_s=0.0, timeout_s=0.2)
    return list(itertools.islice(label(source or store, store, models, build, config=config), turns))


def test_labels_carry_the_version_of_the_newest_networks(filled, models, learner):
    models.publish(0, learner.snapshot())
    first = labels(filled, models, 2)
    models.publish(1, learner.snapshot())
    second = labels(filled, models, 2)
    assert [turn.count for turn in first + second] == [16] * 4
    assert [turn.model_version for turn in first + second] == [1, 1, 2, 2]
    assert all(0.0 <= turn.mean_target <= 1.0 for turn in first)
    batch = filled.sample_labelled(64, 1.0)
    assert set(batch.model_version.tolist()) <= {1, 2}
    assert float(batch.target.min()) >= 0.0


def test_without_transitions_the_updater_waits_and_says_so(memory, models, learner):
    models.publish(0, learner.snapshot())
    turn = labels(memory, models, 1)[0]
    assert turn.count == 0
    assert math.isnan(turn.mean_target)


def test_an_updater_outlives_an_absent_server(filled, models, learner):
    class Absent:
        """Answers every other time."""

        asked = 0

        def sample_transitions(self, count, timeout_s):
            self.asked += 1
            if self.asked % 2:
                raise ServerUnavailable("nobody answers")
            return filled.sample_transitions(count, timeout_s)

    models.publish(0, learner.snapshot())
    assert sorted(turn.count for turn in labels(filled, models, 4, source=Absent())) == [0, 0, 16, 16]


def put_labels(store, version=1):
    transitions = store.sample_transitions(60, 1.0)
    store.put_targets(Targets(transitions.position, np.full(60, 0.5, np.float32), version))


def test_training_publishes_saves_and_counts(filled, models, tmp_path):
    put_labels(filled)
    learner = Learner(LearnerConfig(batch=BATCH), seed=0)
    checkpoints = Checkpoints(tmp_path)
    config = TrainLoopConfig(steps=3, publish_every_s=0.0, checkpoint_every_s=3600.0)
    turns = list(
        train(
            filled,
            learner,
            models,
            lambda: checkpoints.save(learner.step, learner.save),
            batch_size=BATCH,
            config=config,
        )
    )
    steps = [turn for turn in turns if turn.figures]
    assert [turn.step for turn in steps] == [1, 2, 3]
    assert all(math.isfinite(turn.figures["loss"]) for turn in steps)
    assert all(turn.label_age_s >= 0 for turn in steps)
    assert [snapshot.step for snapshot in models.published][:2] == [0, 1]
    assert turns[-1].checkpoint == tmp_path / "0000000003"
    restored = Learner.restore(tmp_path / "last")
    assert restored.step == 3
    for name, tensor in learner.theta1.state_dict().items():
        assert torch.equal(restored.theta1.state_dict()[name], tensor), name


def test_what_is_published_first_has_a_checkpoint_before_it(filled, learner, tmp_path):
    checkpoints = Checkpoints(tmp_path)

    class Killed(BaseException):
        """Ends the trainer as soon as others have its networks."""

    class Models:
        def publish(self, step, payload):
            raise Killed

    turns = train(
        filled,
        learner,
        Models(),
        lambda: checkpoints.save(learner.step, learner.save),
        batch_size=BATCH,
        config=TrainLoopConfig(),
    )
    with pytest.raises(Killed):
        next(turns)
    assert [path.name for path in checkpoints.all()] == [f"{learner.step:010d}"]


def test_a_trainer_goes_on_when_publishing_fails(filled, tmp_path):
    class Away:
        """Answers from the third time on."""

        asked = 0

        def publish(self, step, payload):
            self.asked += 1
            if self.asked < 3:
                raise ServerUnavailable("nobody answers")
            return self.asked

    put_labels(filled)
    learner = Learner(LearnerConfig(batch=BATCH), seed=0)
    config = TrainLoopConfig(steps=2, publish_every_s=3600.0, checkpoint_every_s=3600.0)
    turns = list(train(filled, learner, Away(), lambda: tmp_path, batch_size=BATCH, config=config))
    assert learner.step == 2
    assert turns[0].published is None


def test_a_trainer_that_is_told_to_stop_saves_before_a_batch_comes(models, learner, tmp_path):
    done, saved = [], threading.Event()

    class Silent:
        def sample_labelled(self, count, timeout_s):
            saved.wait(30.0)
            done.append("answered")
            raise ServerUnavailable("no labels")

    def save():
        done.append("saved")
        if len(done) == 2:
            saved.set()
        return tmp_path

    stops = itertools.chain([False], itertools.repeat(True))
    config = TrainLoopConfig(prefetch=1)
    list(train(Silent(), learner, models, save, batch_size=BATCH, config=config, stop=lambda: next(stops)))
    assert done == ["saved", "saved", "answered"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LabelLoopConfig(batch_size=0), "batch_size 0"),
        (lambda: TrainLoopConfig(prefetch=0), "prefetch 0"),
        (lambda: TrainLoopConfig(steps=-1), "steps is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
