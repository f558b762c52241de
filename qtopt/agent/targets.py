"""Targets (QT-Opt, section 4.2): V(s') = min over both target networks of Q at the first one's argmax.

The other kinds of target are ablations that the paper and the work before it compare with. They look at the stored
episode alone and need no network.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qtopt.agent.cem import CemConfig
from qtopt.agent.network import QNetwork
from qtopt.agent.search import best_action
from qtopt.config import STRICT
from qtopt.errors import ConfigError, SchemaMismatch
from qtopt.types import Observations, Targets, Transitions


@dataclass(frozen=True)
class TargetConfig:
    """What a transition is labelled with; the defaults are the paper's.

    Attributes:
        kind: ``bellman``, reward plus discounted value of the next state; ``monte_carlo``, the discounted return of
            the stored episode from here on (Quillen et al. 2018); ``supervised``, whether the episode succeeded, for
            each of its actions alike, without discount and penalty (Levine et al. 2016).
        discount: gamma.
        step_penalty: cost of every action that does not end its episode, in place of the one stored; None keeps that.
        target_networks: the smaller value of ``two`` networks (clipped double Q) or that of the first ``one`` alone.
    """

    __pydantic_config__ = STRICT

    kind: Literal["bellman", "monte_carlo", "supervised"] = "bellman"
    discount: float = 0.9
    step_penalty: float | None = None
    target_networks: Literal["two", "one"] = "two"

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount <= 1.0:
            raise ConfigError(f"target discount is {self.discount}, expected 0 to 1")
        if self.step_penalty is not None and not 0.0 <= self.step_penalty <= 1.0:
            raise ConfigError(
                f"target step_penalty is {self.step_penalty}, expected a cost from 0 to 1, or nothing for the stored"
            )

    @property
    def needs_episode(self) -> bool:
        """Whether labels depend on where in its episode a transition stands."""
        return self.kind != "bellman" or self.step_penalty is not None


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
    action, q1 = best_action(theta1, theta1.encode(theta1.inputs(observations)), observations, cem, generator)
    if theta2 is None:
        return q1, q1
    q2 = theta2.score(theta2.encode(theta2.inputs(observations)), action[:, None])[:, 0].sigmoid()
    return q1, q2


def monte_carlo_target(reward: Tensor, steps_left: Tensor, success: Tensor, discount: float) -> Tensor:
    """Returns the discounted return of the stored episode from each transition on, clamped to [0, 1].

    Success is paid once, at the end, and every action before costs the same, so that with k actions to follow the sum
    has the closed form G = r (1 - gamma^k) / (1 - gamma) + gamma^k success, where r is the (negative) reward here.

    Args:
        reward: reward of this action (B,), the cost of each action as long as any follow.
        steps_left: k, actions that follow in the episode (B,), 0 for its last.
        success: bool (B,), whether the episode succeeded.
        discount: gamma in [0, 1].
    """
    faded = discount ** steps_left.to(reward.dtype)
    costs = steps_left if discount == 1.0 else (1.0 - faded) / (1.0 - discount)
    return (reward * costs + faded * success).clamp(0.0, 1.0)


@torch.no_grad()
def label(
    theta1: QNetwork,
    theta2: QNetwork,
    transitions: Transitions,
    version: int,
    *,
    config: TargetConfig,
    cem: CemConfig,
    generator: torch.Generator,
) -> Targets:
    """Labels B transitions; CEM runs only for Bellman targets, and only where something follows.

    Args:
        theta1: the averaged network; chooses the actions.
        theta2: its lagged copy.
        transitions: what to label.
        version: version of the networks, kept with the labels.
        config: what a target is.
        cem: sizes of the search.
        generator: source of CEM's chance.

    Raises:
        SchemaMismatch: the targets need to know the episode, and the server does not tell.
    """
    steps_left = torch.from_numpy(transitions.steps_left.copy())
    success = torch.from_numpy(transitions.success.copy())
    reward = torch.from_numpy(transitions.reward.copy())
    if config.needs_episode and bool((steps_left < 0).any()):
        raise SchemaMismatch(
            f"labels of kind {config.kind!r} with step_penalty {config.step_penalty}: found transitions without "
            "steps_left, expected how many actions follow each; update the server, or use the default targets"
        )
    if config.step_penalty is not None:
        reward = torch.where(steps_left > 0, -config.step_penalty, reward)
    if config.kind == "supervised":
        value = success.float()
    elif config.kind == "monte_carlo":
        value = monte_carlo_target(reward, steps_left, success, config.discount)
    else:
        second = theta2 if config.target_networks == "two" else None
        q1, q2 = _values_of_next(theta1, second, transitions, cem, generator)
        value = bellman_target(reward, torch.from_numpy(transitions.terminal.copy()), q1, q2, config.discount)
    return Targets(transitions.position, value.numpy(), version)


def _values_of_next(
    theta1: QNetwork, theta2: QNetwork | None, transitions: Transitions, cem: CemConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns what ``clipped_value`` gives for the next states, on the CPU; zeros where nothing follows."""
    goes_on = ~transitions.terminal
    q1, q2 = torch.zeros(len(transitions)), torch.zeros(len(transitions))
    if goes_on.any():
        following = Observations(
            transitions.next.image[goes_on],
            transitions.next.gripper_closed[goes_on],
            transitions.next.height_to_bottom[goes_on],
        )
        value1, value2 = clipped_value(theta1, theta2, following, cem, generator)
        where = torch.from_numpy(goes_on)
        q1[where], q2[where] = value1.float().cpu(), value2.float().cpu()
    return q1, q2
