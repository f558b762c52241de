"""The greedy policy: CEM on the averaged network."""

import numpy as np
import torch

from qtopt.agent.cem import CemConfig
from qtopt.agent.network import QNetwork, fold_batch_norm
from qtopt.agent.search import best_action
from qtopt.types import Behaviour, Decision, Observation, Observations


class CemPolicy:
    """Takes the action of highest Q (QT-Opt, section 4.2); implements ``interfaces.Policy``."""

    def __init__(self, network: QNetwork, cem: CemConfig | None = None) -> None:
        self._network = fold_batch_norm(network)
        self._cem = cem if cem is not None else CemConfig()
        self._generator = torch.Generator(device=network.device)

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Seeds the search of the coming episode."""
        self._generator.manual_seed(int(rng.integers(2**63)))

    def select(self, observation: Observation) -> Decision:
        """Returns the best action found and its Q."""
        single = Observations(
            observation.image[None],
            np.array([observation.gripper_closed]),
            np.array([observation.height_to_bottom], np.float32),
        )
        with torch.inference_mode():
            features = self._network.encode(self._network.inputs(single))
            action, value = best_action(self._network, features, single, self._cem, self._generator)
        return Decision(action[0].float().cpu().numpy(), Behaviour.GREEDY, float(value[0]))
