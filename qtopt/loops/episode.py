"""One episode, step by step: run by collectors and by the evaluator alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qtopt.interfaces import Environment, Policy, ResetResult, StepResult
from qtopt.loops.metrics import Clock
from qtopt.loops.retry import Stop
from qtopt.types import Decision, Episode, EpisodeEnd, JsonValue, Outcome, new_episode_uuid


@dataclass
class Recorder:
    """Gathers the steps of one episode and makes an ``Episode`` of them."""

    first: ResetResult
    steps: list[tuple[Decision, StepResult]] = field(default_factory=list)

    def add(self, decision: Decision, result: StepResult) -> None:
        """Takes what one action was and what it led to."""
        self.steps.append((decision, result))

    def episode(self, *, uuid: str, policy_version: int, collector: str, facts: Mapping[str, JsonValue]) -> Episode:
        """Returns the finished episode; an outcome that the cell left open is stored as UNKNOWN."""
        results = [result for _, result in self.steps]
        seen = [self.first.observation, *(result.observation for result in results)]
        poses = [self.first.tool_pose, *(result.tool_pose for result in results)]
        return Episode(
            uuid=uuid,
            images=np.stack([observation.image for observation in seen]),
            gripper_closed=np.array([observation.gripper_closed for observation in seen], bool),
            height_to_bottom=np.array([observation.height_to_bottom for observation in seen], np.float32),
            tool_pose=np.stack(poses).astype(np.float32),
            actions=np.stack([result.executed for result in results]).astype(np.float32),
            rewards=np.array([result.reward for result in results], np.float32),
            behaviour=np.array([decision.behaviour for decision, _ in self.steps], np.uint8),
            end=EpisodeEnd.TERMINATED if results[-1].terminated else EpisodeEnd.TRUNCATED,
            outcome=results[-1].outcome or Outcome.UNKNOWN,
            policy_version=policy_version,
            collector=collector,
            metadata={**self.first.metadata, **results[-1].metadata, **facts},
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished episode and where its time went.

    Attributes:
        episode: the episode.
        environment_s: time in the cell: physics, rendering, motion [s].
        policy_s: time choosing actions [s].
        values: the network's Q of each action taken; NaN where none was asked.
    """

    episode: Episode
    environment_s: float
    policy_s: float
    values: tuple[float, ...]


def run_episode(
    environment: Environment,
    policy: Policy,
    rng: np.random.Generator,
    *,
    stop: Stop,
    clock: Clock,
    seed: int | None = None,
    policy_version: int = 0,
    collector: str = "",
    facts: Mapping[str, JsonValue] | None = None,
) -> Ran | None:
    """Runs one episode; returns None, and drops what was begun, when ``stop`` says so between two actions.

    Args:
        environment: the cell.
        policy: chooses the actions.
        rng: all chance of the episode: its UUID and the policy's.
        stop: asked before each action.
        clock: measures where the time goes [s].
        seed: starts a new, repeatable sequence of scenes.
        policy_version: version of the newest networks held.
        collector: name to store with the episode.
        facts: further metadata to store with the episode.

    Raises:
        RobotError: the cell did not do what was asked.
    """
    uuid = new_episode_uuid(rng)
    started = clock()
    recorder = Recorder(environment.start_episode(seed))
    environment_s, policy_s = clock() - started, 0.0
    policy.begin_episode(rng)
    observation = recorder.first.observation
    while not stop():
        before = clock()
        decision = policy.select(observation)
        chosen = clock()
        result = environment.act(decision.action)
        environment_s += clock() - chosen
        policy_s += chosen - before
        recorder.add(decision, result)
        observation = result.observation
        if result.terminated or result.truncated:
            episode = recorder.episode(uuid=uuid, policy_version=policy_version, collector=collector, facts=facts or {})
            return Ran(episode, environment_s, policy_s, tuple(step.value for step, _ in recorder.steps))
    return None
