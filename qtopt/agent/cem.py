"""The cross-entropy method over mixed actions, batched over states (Rubinstein and Kroese 2004; QT-Opt, section 4.2).

An action is a point in a box plus one of M modes (move, switch the gripper, terminate). The paper gives 64 samples, 6
elites and 2 iterations and leaves the treatment of the discrete parts open. Our choice: the first population is uniform
over the box, so that no corner is left out; modes are drawn by systematic resampling, so that a mode of probability p
gets p N samples to within one; later populations come from a diagonal Gaussian fitted to the elites and from the
elites' share of each mode, mixed with the prior so that no mode dies out. The best sample ever scored is returned,
never an unscored mean.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qtopt.config import CemConfig

__all__ = ["Best", "CemConfig", "Score", "maximise"]


@dataclass(frozen=True)
class Best:
    """The best candidates: point (B, D), mode int64 (B,), score (B,)."""

    point: Tensor
    mode: Tensor
    score: Tensor


Score = Callable[[Tensor, Tensor], Tensor]
"""Scores candidates: points (B, N, D) and modes (B, N) to scores (B, N), higher is better."""


def maximise(
    score: Score,
    low: Tensor,
    high: Tensor,
    mode_prior: Tensor,
    uses_point: Tensor,
    config: CemConfig,
    generator: torch.Generator,
) -> Best:
    """Searches for the highest score of each of B states.

    Args:
        score: the function to maximise, called once an iteration.
        low: lower corner of the box, (D,).
        high: upper corner of the box, (D,).
        mode_prior: probabilities of the M modes for each state, (B, M).
        uses_point: bool (M,), False for modes whose score does not depend on the point; they do not shape the next
            population.
        config: sizes.
        generator: source of all chance.

    Returns:
        The best candidate of each state over all iterations.
    """
    batch, samples = len(mode_prior), config.samples
    mode_probability = mode_prior
    point = low + (high - low) * torch.rand(batch, samples, len(low), generator=generator, device=low.device)
    best: Best | None = None
    for iteration in range(config.iterations):
        mode = _systematic_modes(mode_probability, samples, generator)
        value = score(point, mode)
        best = _better(best, point, mode, value)
        if iteration + 1 == config.iterations:
            break
        elite = value.topk(config.elites, dim=1).indices
        elite_mode = mode.gather(1, elite)
        share = torch.nn.functional.one_hot(elite_mode, mode_prior.shape[1]).float().mean(1)
        mode_probability = (1 - config.prior_share) * share + config.prior_share * mode_prior
        mean, std = _fit(point, elite, uses_point[elite_mode].float(), low, high, config.min_std_share)
        noise = torch.randn(point.shape, generator=generator, device=low.device)
        point = (mean[:, None] + std[:, None] * noise).clamp(low, high)
    assert best is not None
    return best


def _systematic_modes(probability: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Draws modes (B, N) from (B, M) with the least variance: one random offset, N equidistant positions, shuffled."""
    offset = torch.rand(len(probability), 1, generator=generator, device=probability.device)
    position = (torch.arange(samples, device=probability.device) + offset.clamp(min=1e-6)) / samples
    cumulative = probability.cumsum(1) / probability.sum(1, keepdim=True)
    ordered = torch.searchsorted(cumulative[:, :-1].contiguous(), position.contiguous())
    shuffle = torch.randperm(samples, generator=generator, device=probability.device)
    return ordered[:, shuffle]


def _better(best: Best | None, point: Tensor, mode: Tensor, value: Tensor) -> Best:
    top, index = value.max(1)
    row = torch.arange(len(value), device=value.device)
    found = Best(point[row, index], mode[row, index], top)
    if best is None:
        return found
    wins = found.score > best.score
    return Best(
        torch.where(wins[:, None], found.point, best.point),
        torch.where(wins, found.mode, best.mode),
        torch.where(wins, found.score, best.score),
    )


def _fit(
    point: Tensor, elite: Tensor, weight: Tensor, low: Tensor, high: Tensor, min_std_share: float
) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation (B, D) of the elites that use their point; the whole box where none does."""
    chosen = point.gather(1, elite[..., None].expand(-1, -1, point.shape[2]))
    total = weight.sum(1, keepdim=True)
    mean = (weight[..., None] * chosen).sum(1) / total.clamp(min=1)
    variance = (weight[..., None] * (chosen - mean[:, None]) ** 2).sum(1) / (total - 1).clamp(min=1)
    std = variance.sqrt().maximum((high - low) * min_std_share)
    none = total == 0
    return torch.where(none, (low + high) / 2, mean), torch.where(none, (high - low) / 2, std)
