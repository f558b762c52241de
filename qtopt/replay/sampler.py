"""Which transitions are drawn: uniformly, the newer the likelier, balanced by success, by a share of offline data."""

from dataclasses import dataclass

import numpy as np

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.replay.balance import balanced
from qtopt.replay.index import GROUPS, OFFLINE, EpisodeIndex
from qtopt.types import IntArray


@dataclass(frozen=True)
class SamplerConfig:
    """How transitions are drawn; the choices combine, and the default is uniform.

    Attributes:
        success_share: share of transitions from successful episodes; None leaves it as it is in the store.
        offline_share: share of offline transitions at the start; None leaves it as it is in the store.
        offline_share_end: that share at the end of the schedule; None keeps it constant.
        offline_share_over: online transitions collected over which the share goes from start to end, linearly.
        half_life: a transition is half as likely as one that is this many transitions newer among those of its kind
            (success, offline); None draws old and new alike.
    """

    __pydantic_config__ = STRICT

    success_share: float | None = None
    offline_share: float | None = None
    offline_share_end: float | None = None
    offline_share_over: int = 100_000
    half_life: float | None = None

    def __post_init__(self) -> None:
        for name in ("success_share", "offline_share", "offline_share_end"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"sampler {name} is {share}, expected 0 to 1 or nothing")
        if self.offline_share is None and self.offline_share_end is not None:
            raise ConfigError("sampler offline_share_end is set without offline_share; set both or neither")
        if self.offline_share_over < 1:
            raise ConfigError(
                f"sampler offline_share_over is {self.offline_share_over}, expected 1 or more transitions"
            )
        if self.half_life is not None and not self.half_life > 0:
            raise ConfigError(
                f"sampler half_life is {self.half_life}, expected a positive number of transitions or nothing"
            )

    def offline_share_now(self, online_transitions: int) -> float | None:
        """Returns the share of offline data after so many online transitions."""
        if self.offline_share is None or self.offline_share_end is None:
            return self.offline_share
        progress = min(1.0, online_transitions / self.offline_share_over)
        return self.offline_share + progress * (self.offline_share_end - self.offline_share)


def draw(index: EpisodeIndex, count: int, config: SamplerConfig, rng: np.random.Generator) -> IntArray:
    """Draws ``count`` positions of transitions with replacement, ascending, int64 (count,); none of an empty index.

    In order they are found in memory and on the disk much faster than as they were drawn.
    """
    totals = index.group_transitions()
    online = int(totals.sum() - totals[OFFLINE] - totals[OFFLINE | 1])
    shares = balanced(totals, config.success_share, config.offline_share_now(online))
    if not shares.any():
        return np.empty(0, np.int64)
    groups = rng.choice(GROUPS, count, p=shares)
    positions = np.empty(count, np.int64)
    for group in range(GROUPS):
        chosen = groups == group
        wanted = int(np.count_nonzero(chosen))
        if wanted:
            ordinals = np.sort(_ordinals(int(totals[group]), wanted, config.half_life, rng))
            positions[chosen] = index.locate(group, ordinals)
    return np.sort(positions)


def _ordinals(total: int, count: int, half_life: float | None, rng: np.random.Generator) -> IntArray:
    if half_life is None:
        return rng.integers(0, total, count)
    # Inverse of the distribution function of an exponential cut off at ``total``.
    uniform = rng.random(count)
    age = -half_life * np.log2(1 - uniform * -np.expm1(-np.log(2) * total / half_life))
    return np.asarray(total - 1 - np.clip(age.astype(np.int64), 0, total - 1))
