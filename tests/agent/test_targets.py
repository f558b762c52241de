"""Targets against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from qtopt.agent.build import build_network
from qtopt.agent.cem import CemConfig
from qtopt.agent.targets import bellman_target, clipped_value, label
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


def test_labels_only_search_where_something_follows() -> None:
    torch.manual_seed(0)
    network = build_network(TINY).eval()
    rng = np.random.default_rng(1)
    terminal = np.array([True, False, True, False])
    transitions = Transitions(
        np.array([3, 1, 4, 15]), np.array([1.0, -0.05, 0.0, -0.05], np.float32), terminal, observations(rng, 4, 36)
    )
    targets = label(
        network, network, transitions, 7, discount=0.9, cem=CemConfig(), generator=torch.Generator().manual_seed(0)
    )
    assert targets.model_version == 7
    assert targets.position.tolist() == [3, 1, 4, 15]
    assert targets.value[[0, 2]].tolist() == [1.0, 0.0]
    assert np.all((targets.value[[1, 3]] > 0) & (targets.value[[1, 3]] < 1))


@pytest.mark.parametrize("count", [1, 5])
def test_all_terminal_needs_no_search(count: int) -> None:
    rng = np.random.default_rng(1)
    transitions = Transitions(
        np.arange(count), np.ones(count, np.float32), np.ones(count, np.bool_), observations(rng, count, 36)
    )
    network = build_network(TINY).eval()
    targets = label(network, None, transitions, 1, discount=0.9, cem=CemConfig(), generator=torch.Generator())
    assert targets.value.tolist() == [1.0] * count
