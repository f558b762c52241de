"""Targets against numbers worked out by hand."""

import copy

import numpy as np
import pytest
import torch

from qtopt.agent.build import build_network
from qtopt.agent.cem import CemConfig
from qtopt.agent.targets import TargetConfig, bellman_target, clipped_value, label
from qtopt.errors import ConfigError, SchemaMismatch
from qtopt.types import Transitions
from tests.agent.examples import TINY, observations


def test_bellman_target_by_hand() -> None:
    reward = torch.tensor([-0.05, 1.0, 0.0, -0.05, 0.5])
    terminal = torch.tensor([False, True, True, False, False])
    q1 = torch.tensor([0.8, 0.9, 0.9, 0.02, 0.9])
    q2 = torch.tensor([0.6, 0.1, 0.9, 0.9, 0.8])
    # -0.05 + 0.9 * 0.6 = 0.49;  1;  0;  -0.05 + 0.018 < 0 -> 0;  0.5 + 0.9 * 0.8 = 1.22 -> 1
    expected = torch.tensor([0.49, 1.0, 0.0, 0.0, 1.0])
    assert torch.allclose(bellman_target(reward, terminal, q1, q2, 0.9), expected)


def test_value_is_the_minimum_at_the_first_networks_argmax() -> None:
    torch.manual_seed(0)
    theta1, theta2 = build_network(TINY).eval(), build_network(TINY).eval()
    states = observations(np.random.default_rng(0), 6, 36)
    q1, q2 = clipped_value(theta1, theta2, states, CemConfig(), torch.Generator().manual_seed(3))
    swapped1, _ = clipped_value(theta1, None, states, CemConfig(), torch.Generator().manual_seed(3))
    assert torch.equal(q1, swapped1), "the argmax must not depend on the second network"
    assert not torch.allclose(q1, q2)


def transitions(reward, steps_left, success, terminal=None):
    count = len(reward)
    return Transitions(
        np.arange(count),
        np.array(reward, np.float32),
        np.array(steps_left) == 0 if terminal is None else np.array(terminal),
        observations(np.random.default_rng(1), count, 36),
        np.array(steps_left, np.int64),
        np.array(success),
    )


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return build_network(TINY).eval(), build_network(TINY).eval()


def labels(networks, given, **config):
    generator = torch.Generator().manual_seed(0)
    return label(*networks, given, 7, config=TargetConfig(**config), cem=CemConfig(), generator=generator)


def test_labels_only_search_where_something_follows(networks) -> None:
    given = transitions([1.0, -0.05, 0.0, -0.05], [0, 2, 0, 1], [True, True, False, False])
    targets = labels(networks, given)
    assert targets.model_version == 7
    assert targets.position.tolist() == [0, 1, 2, 3]
    assert targets.value[[0, 2]].tolist() == [1.0, 0.0]
    assert np.all((targets.value[[1, 3]] > 0) & (targets.value[[1, 3]] < 1))


@pytest.mark.parametrize("count", [1, 5])
def test_all_terminal_needs_no_search(count: int, networks) -> None:
    targets = labels(networks, transitions([1.0] * count, [0] * count, [True] * count))
    assert targets.value.tolist() == [1.0] * count


def test_another_penalty_moves_labels_by_the_difference(networks) -> None:
    given = transitions([1.0, -0.05], [0, 1], [True, True])
    stored, none = labels(networks, given), labels(networks, given, step_penalty=0.0)
    assert none.value[0] == stored.value[0] == 1.0
    assert none.value[1] - stored.value[1] == pytest.approx(0.05, abs=1e-6)


def test_a_penalty_spares_the_last_action_even_where_the_value_goes_on_behind_it(networks) -> None:
    given = transitions([0.0], [0], [False], terminal=[False])
    assert labels(networks, given, step_penalty=0.5).value == labels(networks, given).value


def test_one_target_network_is_the_first(networks) -> None:
    theta1, lower = networks[0], copy.deepcopy(networks[0])
    with torch.no_grad():
        lower.head[-1].bias -= 1.0
    given = transitions([0.0] * 6, [1] * 6, [True] * 6)
    one = labels((theta1, lower), given, target_networks="one").value
    assert np.array_equal(one, labels((theta1, theta1), given).value)
    assert np.all(labels((theta1, lower), given, target_networks="two").value < one)


def test_monte_carlo_by_hand(networks) -> None:
    given = transitions([1.0, -0.05, -0.05, -0.05, 0.0], [0, 1, 3, 2, 0], [True, True, True, False, False])
    # k = 0: 1;  k = 1: -0.05 + 0.9;  k = 3: -0.05 (1 + 0.9 + 0.81) + 0.729 = 0.5935;  failures: below 0, so 0; 0
    expected = [1.0, 0.85, 0.5935, 0.0, 0.0]
    assert labels(networks, given, kind="monte_carlo").value == pytest.approx(expected, abs=1e-6)
    # without discount and with a penalty of 0.1: 1, 0.9, 1 - 3 * 0.1
    changed = labels(networks, given, kind="monte_carlo", discount=1.0, step_penalty=0.1).value
    assert changed == pytest.approx([1.0, 0.9, 0.7, 0.0, 0.0], abs=1e-6)


def test_supervised_labels_are_the_episodes_outcome(networks) -> None:
    given = transitions([1.0, -0.05, -0.05, 0.0], [0, 7, 7, 0], [True, True, False, False])
    assert labels(networks, given, kind="supervised", discount=0.5).value.tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("config", [{"kind": "supervised"}, {"kind": "monte_carlo"}, {"step_penalty": 0.0}])
def test_what_needs_the_episode_says_so_when_it_is_not_told(networks, config) -> None:
    given = transitions([-0.05], [-1], [False], terminal=[False])
    assert 0 <= labels(networks, given).value[0] <= 1
    with pytest.raises(SchemaMismatch, match="expected how many actions follow each"):
        labels(networks, given, **config)


@pytest.mark.parametrize("wrong", [{"discount": 1.1}, {"step_penalty": -0.1}, {"step_penalty": 2.0}])
def test_settings_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=f"target {next(iter(wrong))} is"):
        TargetConfig(**wrong)
