"""The cross-entropy search for the best action of one state, in numpy: the algorithm of ``qtopt.agent.cem``.

Given the same random numbers it finds the same action. Everything is float32, as it is there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qtopt.config import CemConfig
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
from qtopt.types import FloatArray, IntArray, Observation

_LOW, _HIGH = np.array(POINT_LOW, np.float32), np.array(POINT_HIGH, np.float32)
_USES_POINT = np.array(MODE_USES_POINT, np.float32)
_SMALLEST_OFFSET = np.float32(1e-6)


class Draws(Protocol):
    """The source of a search's chance; asked in a fixed order."""

    def uniform(self, *shape: int) -> FloatArray:
        """Returns float32 numbers from [0, 1)."""
        ...

    def normal(self, *shape: int) -> FloatArray:
        """Returns float32 numbers of mean 0 and deviation 1."""
        ...

    def permutation(self, size: int) -> IntArray:
        """Returns the numbers from 0 to ``size`` - 1 in a random order."""
        ...


class NumpyDraws:
    """Draws from a numpy generator of its own."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def uniform(self, *shape: int) -> FloatArray:
        """Returns float32 numbers from [0, 1)."""
        return self._rng.random(shape, np.float32)

    def normal(self, *shape: int) -> FloatArray:
        """Returns float32 numbers of mean 0 and deviation 1."""
        return self._rng.standard_normal(shape, np.float32)

    def permutation(self, size: int) -> IntArray:
        """Returns the numbers from 0 to ``size`` - 1 in a random order."""
        return self._rng.permutation(size)


@dataclass(frozen=True, slots=True)
class Best:
    """The best candidate ever scored: point float32 (4,), mode, score."""

    point: FloatArray
    mode: int
    score: float


Score = Callable[[FloatArray, IntArray], FloatArray]
"""Scores candidates: points (N, 4) and modes (N,) to scores (N,), higher is better."""


def maximise(score: Score, mode_prior: FloatArray, config: CemConfig, draws: Draws) -> Best:
    """Searches for the highest score over the box and the modes of ``qtopt.specs``.

    Args:
        score: the function to maximise, called once an iteration.
        mode_prior: float32 (3,), probabilities of the modes.
        config: sizes.
        draws: source of all chance.
    """
    samples = config.samples
    probability = mode_prior
    point = _LOW + (_HIGH - _LOW) * draws.uniform(samples, len(_LOW))
    best: Best | None = None
    for iteration in range(config.iterations):
        mode = _systematic_modes(probability, samples, draws)
        value = score(point, mode)
        top = int(value.argmax())
        if best is None or value[top] > best.score:
            best = Best(point[top], int(mode[top]), float(value[top]))
        if iteration + 1 == config.iterations:
            break
        elite = np.argsort(-value, kind="stable")[: config.elites]
        share = np.bincount(mode[elite], minlength=len(mode_prior)).astype(np.float32) / np.float32(config.elites)
        probability = np.float32(1 - config.prior_share) * share + np.float32(config.prior_share) * mode_prior
        mean, std = _fit(point[elite], _USES_POINT[mode[elite]], config.min_std_share)
        point = np.clip(mean + std * draws.normal(samples, len(_LOW)), _LOW, _HIGH)
    assert best is not None
    return best


def prior(observation: Observation, lifted_m: float, terminate_above_m: float | None) -> FloatArray:
    """Returns the probabilities (3,) of the modes before anything is known of their values.

    Args:
        observation: the state; open fingers hold nothing, so ending is then no candidate.
        lifted_m: lower than this nothing counts as held [m].
        terminate_above_m: height of a scripted rule that alone ends episodes; None without.
    """
    above_m = np.float32(lifted_m if terminate_above_m is None else terminate_above_m)
    if not (observation.gripper_closed and np.float32(observation.height_to_bottom) >= above_m):
        return np.array(PRIOR_NO_END, np.float32)
    return np.array(PRIOR_MAY_END if terminate_above_m is None else PRIOR_ENDS, np.float32)


def to_actions(point: FloatArray, mode: IntArray, observation: Observation) -> FloatArray:
    """Returns actions float32 (N, 8) of points (N, 4) in modes (N,), from the state of ``observation``."""
    moves = (mode != MODE_TERMINATE).astype(np.float32)
    switch = (mode == MODE_SWITCH).astype(np.float32)
    closed = np.float32(observation.gripper_closed)
    yaw = point[:, 3] * moves
    flags = np.stack([switch * (1 - closed), switch * closed, 1 - moves], 1)
    turn = np.stack([np.sin(yaw), np.cos(yaw)], 1)
    return np.concatenate([point[:, :3] * moves[:, None], turn, flags], 1, dtype=np.float32)


def _systematic_modes(probability: FloatArray, samples: int, draws: Draws) -> IntArray:
    """Draws modes (N,) with the least variance: one random offset, N equidistant positions, shuffled."""
    offset = np.maximum(draws.uniform(1), _SMALLEST_OFFSET)
    position = (np.arange(samples, dtype=np.float32) + offset) / np.float32(samples)
    cumulative = np.cumsum(probability, dtype=np.float32) / probability.sum(dtype=np.float32)
    ordered = np.searchsorted(cumulative[:-1], position)
    return np.asarray(ordered[draws.permutation(samples)], np.int64)


def _fit(elite: FloatArray, weight: FloatArray, min_std_share: float) -> tuple[FloatArray, FloatArray]:
    """Returns mean and standard deviation (4,) of the elites that use their point; the whole box where none does."""
    total = weight.sum(dtype=np.float32)
    if total == 0:
        half = np.float32(0.5)
        return half * (_LOW + _HIGH), half * (_HIGH - _LOW)
    mean = (weight[:, None] * elite).sum(0) / total
    variance = (weight[:, None] * (elite - mean) ** 2).sum(0) / np.maximum(total - 1, 1)
    return mean, np.maximum(np.sqrt(variance), (_HIGH - _LOW) * np.float32(min_std_share))
