"""Bellman targets (QT-Opt, section 4.2): V(s') = min over both target networks of Q at the first one's argmax."""

import torch
from torch import Tensor

from qtopt.agent.cem import CemConfig
from qtopt.agent.network import QNetwork
from qtopt.agent.search import best_action
from qtopt.types import Observations, Targets, Transitions


def bellman_target(r_t: Tensor, terminal_t: Tensor, q1_t: Tensor, q2_t: Tensor, discount: float) -> Tensor:
    """Returns r + discount min(q1, q2) where the episode goes on and r where it ended, clamped to [0, 1].

    The step penalty can take r below 0, which a sigmoid cannot reach; hence the clamp.

    Args:
        r_t: rewards (B,).
        terminal_t: bool (B,), True where nothing follows.
        q1_t: value of the first target network at its own argmax a*, (B,) in [0, 1].
        q2_t: value of the second target network at the same a*, (B,) in [0, 1].
        discount: in [0, 1].
    """
    follows = torch.where(terminal_t, 0.0, torch.minimum(q1_t, q2_t))
    return (r_t + discount * follows).clamp(0.0, 1.0)


@torch.no_grad()
def clipped_value(
    theta1: QNetwork, theta2: QNetwork | None, observations: Observations, cem: CemConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns Q of both target networks at the argmax of the first, two tensors (B,).

    Without theta2 the first one twice.
    """
    action, q1 = best_action(
        theta1, theta1.encode(theta1.inputs(observations)), observations.gripper_closed, cem, generator
    )
    if theta2 is None:
        return q1, q1
    q2 = theta2.score(theta2.encode(theta2.inputs(observations)), action[:, None])[:, 0].sigmoid()
    return q1, q2


@torch.no_grad()
def label(
    theta1: QNetwork,
    theta2: QNetwork | None,
    transitions: Transitions,
    version: int,
    *,
    discount: float,
    cem: CemConfig,
    generator: torch.Generator,
) -> Targets:
    """Labels B transitions; CEM runs only for those that something follows.

    Args:
        theta1: the averaged network; chooses the actions.
        theta2: its lagged copy; None for the single-target ablation.
        transitions: what to label.
        version: version of the networks, kept with the labels.
        discount: gamma, 0.9 in the paper.
        cem: sizes of the search.
        generator: source of CEM's chance.
    """
    terminal = torch.from_numpy(transitions.terminal.copy())
    q1 = torch.zeros(len(transitions))
    q2 = torch.zeros(len(transitions))
    if not bool(terminal.all()):
        goes_on = ~transitions.terminal
        following = Observations(
            transitions.next.image[goes_on],
            transitions.next.gripper_closed[goes_on],
            transitions.next.height_to_bottom[goes_on],
        )
        value1, value2 = clipped_value(theta1, theta2, following, cem, generator)
        q1[~terminal], q2[~terminal] = value1.float().cpu(), value2.float().cpu()
    value = bellman_target(torch.from_numpy(transitions.reward.copy()), terminal, q1, q2, discount)
    return Targets(transitions.position, value.numpy(), version)
