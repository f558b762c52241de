"""The learner learns, averages as worked out by hand, and resumes exactly."""

import dataclasses
import math
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from qtopt.agent.learner import Learner, LearnerConfig, q_loss
from qtopt.agent.snapshot import TargetNetworks, pack, unpack
from qtopt.errors import CheckpointError, ConfigError
from tests.agent.examples import TINY, labelled_batch


def assert_same(first: TargetNetworks, second: TargetNetworks) -> None:
    assert first.step == second.step
    for ours, theirs in ((first.theta1, second.theta1), (first.theta2, second.theta2)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name


CONFIG = LearnerConfig(network=TINY, batch=8, lag_steps=2, polyak=0.5)


def test_cross_entropy_by_hand() -> None:
    # q = 0.5: -(0.3 ln 0.5 + 0.7 ln 0.5) = ln 2
    assert float(q_loss(torch.tensor([0.0]), torch.tensor([0.3]), "cross_entropy")) == pytest.approx(np.log(2))
    assert float(q_loss(torch.tensor([0.0]), torch.tensor([0.3]), "squared_error")) == pytest.approx(0.04)


def test_fits_a_small_batch() -> None:
    config = dataclasses.replace(
        CONFIG,
        network=dataclasses.replace(TINY, image=dataclasses.replace(TINY.image, photometric=0.0)),
        learning_rate=3e-3,
    )
    learner = Learner(config, seed=0)
    batch = labelled_batch(np.random.default_rng(0))
    first = learner.update(batch)["excess_loss"]
    for _ in range(150):
        last = learner.update(batch)["excess_loss"]
    assert last < 0.3 * first


def test_average_and_lag_follow_the_paper() -> None:
    learner = Learner(dataclasses.replace(CONFIG, polyak=0.9), seed=0)
    rng = np.random.default_rng(0)
    name = "head.1.weight"
    theta1_history = [learner.theta1.state_dict()[name].clone()]
    for step in range(1, 6):
        before = learner.theta1.state_dict()[name].clone()
        learner.update(labelled_batch(rng))
        keep = min(0.9, (1 + step) / (10 + step))
        theta = learner._theta.state_dict()[name]
        assert torch.allclose(learner.theta1.state_dict()[name], keep * before + (1 - keep) * theta, atol=1e-6)
        theta1_history.append(learner.theta1.state_dict()[name].clone())
    # lag 2: at step 4 theta2 became what theta1 was at step 2; at step 5 it is still that.
    assert torch.equal(learner.theta2.state_dict()[name], theta1_history[2])


def test_batch_norm_statistics_are_averaged_too() -> None:
    learner = Learner(CONFIG, seed=0)
    name = "stem.0.1.running_mean"
    learner.update(labelled_batch(np.random.default_rng(0)))
    theta, theta1 = learner._theta.state_dict()[name], learner.theta1.state_dict()[name]
    assert torch.allclose(theta1, theta * (1 - 2 / 11), atol=1e-7)


def test_resumes_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    batches = [labelled_batch(rng) for _ in range(8)]
    learner = Learner(CONFIG, seed=0)
    for batch in batches[:5]:
        learner.update(batch)
    learner.save(tmp_path)
    restored = Learner.restore(tmp_path)
    assert restored.step == 5
    for batch in batches[5:]:
        assert restored.update(batch) == learner.update(batch)
    assert_same(unpack(restored.snapshot()), unpack(learner.snapshot()))


def test_goes_on_from_a_policy_with_the_average_at_full_weight(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = Learner(CONFIG, seed=0)
    for _ in range(5):
        first.update(labelled_batch(rng))
    config = dataclasses.replace(CONFIG, polyak=0.9)
    learner = Learner.from_policy(first.snapshot(), config, seed=1)
    assert learner.step == 0
    name = "head.1.weight"
    before = first.theta1.state_dict()[name]
    assert torch.equal(learner._theta.state_dict()[name], before)
    assert torch.equal(learner.theta1.state_dict()[name], before)
    assert torch.equal(learner.theta2.state_dict()[name], first.theta2.state_dict()[name])
    learner.update(labelled_batch(rng))
    theta = learner._theta.state_dict()[name]
    assert torch.allclose(learner.theta1.state_dict()[name], 0.9 * before + 0.1 * theta, atol=1e-6)
    learner.save(tmp_path)
    restored, batch = Learner.restore(tmp_path), labelled_batch(rng)
    restored.update(batch)
    learner.update(batch)
    assert_same(unpack(restored.snapshot()), unpack(learner.snapshot()))


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_learning_rate_decays_by_stairs_down_to_its_floor(optimiser: str) -> None:
    config = dataclasses.replace(
        CONFIG, optimiser=optimiser, learning_rate=0.1, decay_steps=2, decay_rate=0.5, decay_floor=0.2
    )
    learner = Learner(config, seed=0)
    rates = []
    for _ in range(8):
        learner.update(labelled_batch(np.random.default_rng(0)))
        rates.append(learner._optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.02, 0.02])


def test_snapshot_round_trip() -> None:
    learner = Learner(CONFIG, seed=0)
    learner.update(labelled_batch(np.random.default_rng(0)))
    networks = unpack(learner.snapshot())
    assert networks.step == 1
    assert networks.theta1.config == TINY
    assert_same(unpack(pack(networks.theta1, networks.theta2, 1)), networks)


def test_foreign_bytes_are_refused_clearly(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected safetensors"):
        unpack(b"not weights at all")
    with pytest.raises(CheckpointError, match="give the directory of one checkpoint"):
        Learner.restore(tmp_path)


def test_a_damaged_checkpoint_is_refused_clearly(tmp_path: Path) -> None:
    Learner(CONFIG, seed=0).save(tmp_path)
    file = tmp_path / "learner.safetensors"
    whole = file.read_bytes()
    for content in (whole[:1000], b"", save({"theta": np.zeros(1, np.float32)})):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="expected a checkpoint"):
            Learner.restore(tmp_path)
    file.write_bytes(whole)
    (tmp_path / "learner.json").write_text("[]")
    with pytest.raises(CheckpointError, match="expected a checkpoint"):
        Learner.restore(tmp_path)


def test_a_disk_without_room_is_an_error_of_the_system(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    learner = Learner(CONFIG, seed=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            learner.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    "setting",
    [
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"momentum": -0.1},
        {"weight_decay": -1e-5},
        {"auxiliary_weight": -1.0},
        {"polyak": 1.5},
    ],
)
def test_what_no_optimiser_can_work_with_is_refused(setting: dict[str, float]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ConfigError, match=f"{name} (is )?{value}"):
        dataclasses.replace(LearnerConfig(), **setting)
