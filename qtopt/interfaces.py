"""What the parts ask of each other: Protocols of one to three methods. A remote part *is* the local interface."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from qtopt.types import (
    Decision,
    Episode,
    FloatArray,
    JsonValue,
    LabelledBatch,
    ModelSnapshot,
    Observation,
    Outcome,
    Targets,
    Transitions,
)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one action led to.

    Attributes:
        observation: what is seen afterwards.
        reward: 1 at the end of an episode that holds an object, minus the step penalty otherwise.
        terminated: the policy ended the episode.
        truncated: the step limit ended it.
        executed: float32 (8,), the action as executed after every limit.
        tool_pose: float32 (4,), x, y, z [m], azimuth [rad] in the base frame, at ``observation``.
        outcome: set when the episode ended.
        metadata: facts to store with the episode, known at its end: the evidence behind the outcome.
    """

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool
    executed: FloatArray
    tool_pose: FloatArray
    outcome: Outcome | None = None
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResetResult:
    """The first observation of an episode, the tool pose (float32 (4,)) and facts to store with the episode."""

    observation: Observation
    tool_pose: FloatArray
    metadata: Mapping[str, JsonValue]


class Environment(Protocol):
    """A cell in which episodes are run.

    Usage::

        first = environment.start_episode(seed)
        while True:
            result = environment.act(policy.select(observation).action)
            if result.terminated or result.truncated: break
    """

    def start_episode(self, seed: int | None = None) -> ResetResult:
        """Brings the arm to a start pose over the bin; ``seed`` starts a new, repeatable sequence of scenes."""
        ...

    def act(self, action: FloatArray) -> StepResult:
        """Executes one action, float32 (8,), within the limits. Raises RobotError after the end of an episode."""
        ...

    def close(self) -> None:
        """Leaves the arm standing still and frees the devices."""
        ...


class Policy(Protocol):
    """Chooses actions; holds what it has to remember since ``begin_episode``."""

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Forgets the last episode; all chance of the coming one is drawn from ``rng``."""
        ...

    def select(self, observation: Observation) -> Decision:
        """Returns the action to take."""
        ...


class EpisodeSink(Protocol):
    """Takes finished episodes."""

    def append(self, episode: Episode) -> bool:
        """Stores an episode durably; returning is the acknowledgement.

        Returns True if it was new, False if the same episode was there already.

        Raises:
            SchemaMismatch: the episode does not fit the store.
            EpisodeConflict: the UUID is known with other content.
            StoreFull: no room; nothing was stored.
            ServerUnavailable: (remote) nobody answered; try again.
        """
        ...


class TransitionSource(Protocol):
    """Gives transitions to label."""

    def sample_transitions(self, count: int, timeout_s: float) -> Transitions:
        """Returns ``count`` transitions; raises ServerUnavailable when none may be had within ``timeout_s``."""
        ...


class TargetSink(Protocol):
    """Takes labels back."""

    def put_targets(self, targets: Targets) -> None:
        """Enters labels in the ring; labels of transitions that are gone are dropped silently and counted."""
        ...


class BatchSource(Protocol):
    """Gives labelled transitions to learn from."""

    def sample_labelled(self, count: int, timeout_s: float) -> LabelledBatch:
        """Returns ``count`` labelled transitions; raises ServerUnavailable when there are none within ``timeout_s``."""
        ...


class ModelSource(Protocol):
    """Gives published networks."""

    def latest(self, newer_than: int = 0) -> ModelSnapshot | None:
        """Returns the newest snapshot if its version is above ``newer_than`` or the source counts anew, else None."""
        ...


class ModelSink(Protocol):
    """Takes networks to publish."""

    def publish(self, step: int, payload: bytes) -> int:
        """Publishes safetensors bytes made after ``step`` gradient steps; returns the version given."""
        ...


class Reporter(Protocol):
    """Takes a role's figures, to be shown and kept."""

    def report(self, role: str, figures: Mapping[str, float]) -> None:
        """Takes the newest figures of ``role`` (``trainer``, ``collector/sim-0``, ...)."""
        ...
