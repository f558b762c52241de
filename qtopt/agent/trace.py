"""The greedy policy with its search laid open: what each population was, and what the network said of it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qtopt.agent.cem import CemConfig
from qtopt.agent.network import Features, Inputs, QNetwork
from qtopt.agent.policy import CemPolicy
from qtopt.types import Decision, FloatArray, Observation, Observations


@dataclass(frozen=True)
class Search:
    """One search for an action.

    Attributes:
        populations: for each iteration the candidates, float32 (N, 8), and their Q, float32 (N,) in [0, 1].
        decision: what came of it.
    """

    populations: tuple[tuple[FloatArray, FloatArray], ...]
    decision: Decision


class TracedPolicy(CemPolicy):
    """Decides as ``CemPolicy`` does, to the bit, and keeps the searches of the episode under way."""

    def __init__(self, network: QNetwork, cem: CemConfig | None = None) -> None:
        super().__init__(network, cem)
        self._network = self._recording = _Recording(self._network)
        self.searches: list[Search] = []

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Forgets the searches of the last episode."""
        super().begin_episode(rng)
        self.searches.clear()

    def select(self, observation: Observation) -> Decision:
        """Returns the best action found and keeps how it was found."""
        self._recording.asked.clear()
        decision = super().select(observation)
        self.searches.append(Search(tuple(self._recording.asked), decision))
        return decision

    def values(self, observation: Observation, actions: FloatArray) -> FloatArray:
        """Returns the network's Q, float32 (K,) in [0, 1], of the actions (K, 8) in one state."""
        single = Observations(
            observation.image[None],
            np.array([observation.gripper_closed]),
            np.array([observation.height_to_bottom], np.float32),
        )
        network = self._recording.network
        with torch.inference_mode():
            features = network.encode(network.inputs(single))
            logits = network.score(features, torch.from_numpy(actions)[None].to(network.device))
        return _array(logits[0].sigmoid())


class _Recording(QNetwork):
    """Writes down what it is asked to score for the one state of a search, and what the answer was."""

    def __init__(self, network: QNetwork) -> None:
        super().__init__(network.config)
        self.network = network
        self.asked: list[tuple[FloatArray, FloatArray]] = []

    def encode(self, inputs: Inputs) -> Features:
        return self.network.encode(inputs)

    def score(self, features: Features, actions: Tensor) -> Tensor:
        logits = self.network.score(features, actions)
        self.asked.append((_array(actions[0]), _array(logits[0].sigmoid())))
        return logits


def _array(tensor: Tensor) -> FloatArray:
    values: FloatArray = tensor.float().cpu().numpy()
    return values
