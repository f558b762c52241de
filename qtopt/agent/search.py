"""From a network and a state to its best action: CEM over the action space of ``qtopt.specs``.

Three modes: *move*, *switch* (move, then close an open or open a closed gripper) and *terminate* (which does nothing
else, so its point is left out of the fit). No two encodings of the same act are left to waste samples on. With open
fingers, or lower than a held object counts (``Reach.lifted_m``), terminate is no candidate: the value of ending there
is 0 by definition, and a network's opinion of it could only be an error.

With scripted termination (``NetworkConfig.terminate_above_m``, an ablation of the paper) the network is not asked:
closed fingers at that height terminate, and terminate is no candidate anywhere else. Labels and actions alike come
through here, so both follow the rule that the network was trained under.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qtopt.agent.cem import CemConfig, maximise
from qtopt.agent.network import Features, NetworkConfig, QNetwork
from qtopt.specs import (
    MODE_SWITCH,
    MODE_TERMINATE,
    MODE_USES_POINT,
    POINT_HIGH,
    POINT_LOW,
    PRIOR_ENDS,
    PRIOR_MAY_END,
    PRIOR_NO_END,
)
from qtopt.types import Observations


@dataclass(frozen=True)
class _Box:
    """The search space as tensors, made once for each device."""

    low: Tensor
    high: Tensor
    prior_no_end: Tensor
    prior_may_end: Tensor
    prior_ends: Tensor
    uses_point: Tensor


@functools.cache
def _box_on(device: torch.device) -> _Box:
    with torch.inference_mode(mode=False):
        return _Box(
            low=torch.tensor(POINT_LOW, device=device),
            high=torch.tensor(POINT_HIGH, device=device),
            prior_no_end=torch.tensor(PRIOR_NO_END, device=device),
            prior_may_end=torch.tensor(PRIOR_MAY_END, device=device),
            prior_ends=torch.tensor(PRIOR_ENDS, device=device),
            uses_point=torch.tensor(MODE_USES_POINT, device=device),
        )


def to_actions(point: Tensor, mode: Tensor, gripper_closed: Tensor) -> Tensor:
    """Returns actions (..., 8).

    Args:
        point: (..., 4): x, y, z [m], change of azimuth [rad].
        mode: (...), ``MODE_MOVE``, ``MODE_SWITCH`` or ``MODE_TERMINATE``.
        gripper_closed: (...), whether the gripper is closed before the action.
    """
    stays = (mode == MODE_TERMINATE).to(point.dtype)
    moves = 1 - stays
    switch = (mode == MODE_SWITCH).to(point.dtype)
    closed = gripper_closed.to(point.dtype)
    yaw = point[..., 3] * moves
    flags = torch.stack([switch * (1 - closed), switch * closed, stays], -1)
    return torch.cat([point[..., :3] * moves[..., None], yaw.sin()[..., None], yaw.cos()[..., None], flags], -1)


@torch.no_grad()
def best_action(
    network: QNetwork, features: Features, observations: Observations, cem: CemConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns the actions (B, 8) that maximise the network's Q for B states, and their Q (B,) in [0, 1].

    Args:
        network: the Q-function.
        features: what its trunk made of the B states.
        observations: the same states; gripper and height say which modes are candidates.
        cem: sizes of the search.
        generator: source of its chance.
    """
    box = _box_on(network.device)
    closed = torch.from_numpy(np.array(observations.gripper_closed)).to(network.device)

    def score(point: Tensor, mode: Tensor) -> Tensor:
        return network.score(features, to_actions(point, mode, closed[:, None].expand_as(mode)))

    best = maximise(
        score,
        box.low,
        box.high,
        _prior(box, closed, observations, network.config),
        box.uses_point,
        cem,
        generator,
    )
    return to_actions(best.point, best.mode, closed), best.score.sigmoid()


def _prior(box: _Box, closed: Tensor, observations: Observations, config: NetworkConfig) -> Tensor:
    """Returns the probabilities (B, 3) of the modes before anything is known of their values."""
    height = torch.from_numpy(np.array(observations.height_to_bottom, np.float32)).to(closed.device)
    scripted = config.terminate_above_m
    may_end = closed & (height >= (config.reach.lifted_m if scripted is None else scripted))
    return torch.where(may_end[:, None], box.prior_may_end if scripted is None else box.prior_ends, box.prior_no_end)
