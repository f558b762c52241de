"""Evaluation: a policy on fixed scenes, success with its interval, failures by kind."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.interfaces import Environment, Policy
from qtopt.loops.episode import run_episode
from qtopt.loops.metrics import Clock, Proportion, wilson
from qtopt.loops.retry import Stop, never
from qtopt.types import Episode, JsonValue, Outcome


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated.

    Attributes:
        episodes: episodes to run.
        seed: chooses the scenes and all chance; the same seed gives the same scenes to every policy.
        episodes_per_scene: episodes run one after another in a bin before it is filled anew.
        shard: which of ``shards`` parts to run; parts run side by side and are put together afterwards.
        shards: parts in all.
        until_empty: go on to the next scene as soon as nothing is left in the bin.
    """

    __pydantic_config__ = STRICT

    episodes: int = 200
    seed: int = 0
    episodes_per_scene: int = 1
    shard: int = 0
    shards: int = 1
    until_empty: bool = False

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.episodes_per_scene < 1 or self.seed < 0:
            raise ConfigError(
                f"evaluation: episodes {self.episodes} and episodes_per_scene {self.episodes_per_scene} must be "
                f"positive, seed {self.seed} not negative"
            )
        if not 0 <= self.shard < self.shards:
            raise ConfigError(f"evaluation: shard is {self.shard}, expected 0 to shards - 1 = {self.shards - 1}")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluated episode.

    Attributes:
        index: its number in the whole evaluation.
        scene: number of the scene it ran in.
        attempt: which of the scene's episodes it was, from 1.
        scene_seed: seed of the scene it ran in.
        episode: what happened.
        values: the network's Q of each action; NaN where none was asked.
        policy_s: time choosing actions [s].
    """

    index: int
    scene: int
    attempt: int
    scene_seed: int
    episode: Episode
    values: tuple[float, ...]
    policy_s: float

    @property
    def objects_before(self) -> int | None:
        """Objects in the bin when it began; None where the cell does not say."""
        objects = self.episode.metadata.get("objects")
        return len(objects) if isinstance(objects, list) else None

    def leaves_nothing(self) -> bool:
        """Returns whether the bin is empty after it."""
        before = self.objects_before
        return before is not None and before - self.episode.success <= 0

    def to_json(self) -> dict[str, JsonValue]:
        """Returns what is kept of it, in JSON values."""
        finite = [round(value, 4) for value in self.values if np.isfinite(value)]
        return {
            "index": self.index,
            "scene": self.scene,
            "attempt": self.attempt,
            "objects_before": self.objects_before,
            "scene_seed": self.scene_seed,
            "outcome": self.episode.outcome.name.lower(),
            "steps": len(self.episode),
            "return": round(float(self.episode.rewards.sum()), 4),
            "last_value": finite[-1] if finite else None,
            "policy_ms_per_step": round(1e3 * self.policy_s / len(self.episode), 3),
        }


def evaluate(
    environment: Environment,
    policy: Policy,
    *,
    config: EvaluationConfig,
    stop: Stop = never,
    clock: Clock = time.monotonic,
) -> Iterator[Evaluated]:
    """Runs the episodes of this shard; ends early when told to stop.

    Scene and policy draw their chance from (seed, scene) alone, so that the result depends neither on the sharding nor
    on the policy evaluated before.
    """
    scenes = -(-config.episodes // config.episodes_per_scene)
    for scene in range(config.shard, scenes, config.shards):
        sequence = np.random.SeedSequence([config.seed, scene])
        rng = np.random.default_rng(sequence)
        scene_seed = int(sequence.generate_state(1)[0] >> 1)
        first = scene * config.episodes_per_scene
        for index in range(first, min(first + config.episodes_per_scene, config.episodes)):
            seed = scene_seed if index == first else None
            ran = run_episode(
                environment, policy, rng, stop=stop, clock=clock, seed=seed, collector="evaluator", facts={}
            )
            if ran is None:
                return
            one = Evaluated(index, scene, index - first + 1, scene_seed, ran.episode, ran.values, ran.policy_s)
            if config.until_empty and index > first and one.objects_before == 0:
                break  # what was left fell out during the attempt before: there was nothing to try
            yield one
            if config.until_empty and one.leaves_nothing():
                break


def summarise(rows: Sequence[dict[str, JsonValue]]) -> dict[str, JsonValue]:
    """Returns the figures of episodes given as ``Evaluated.to_json`` gives them.

    Episodes that a fault ended count in ``aborted`` and not as trials.
    """
    outcomes = [str(row["outcome"]) for row in rows]
    counts: dict[str, JsonValue] = {outcome.name.lower(): outcomes.count(outcome.name.lower()) for outcome in Outcome}
    void = {Outcome.ABORTED.name.lower(), Outcome.UNKNOWN.name.lower()}
    judged = [row for row in rows if row["outcome"] not in void]
    success = success_of(rows)
    steps = [_number(row["steps"]) for row in judged]
    return {
        "episodes": len(judged),
        "successes": success.successes,
        "success": round(success.rate, 4) if judged else None,
        "wilson_95": [round(success.low, 4), round(success.high, 4)],
        "steps_per_grasp": round(float(np.mean(steps)), 2) if judged else None,
        "outcomes": counts,
        "aborted": len(rows) - len(judged),
    }


def success_of(rows: Iterable[dict[str, JsonValue]]) -> Proportion:
    """Returns the successes among the episodes that were judged."""
    void = {Outcome.ABORTED.name.lower(), Outcome.UNKNOWN.name.lower()}
    judged = [row for row in rows if row["outcome"] not in void]
    return wilson(sum(row["outcome"] == Outcome.SUCCESS.name.lower() for row in judged), len(judged))


def _number(value: JsonValue) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"found {value!r}, expected a number")
    return float(value)
