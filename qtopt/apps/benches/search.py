"""States labelled per second: CEM batched over states beside one state at a time."""

import numpy as np
import torch

from qtopt.agent.build import build_network
from qtopt.agent.cem import CemConfig
from qtopt.agent.network import NetworkConfig
from qtopt.agent.search import best_action
from qtopt.apps.benches.measure import line, rates
from qtopt.types import JsonValue, Observations

_STATES = 64


def measure(seconds: float, seed: int) -> dict[str, JsonValue]:
    """Measures the best of 64 actions in two iterations, for states from the trunk on; compact network."""
    config, cem = NetworkConfig(), CemConfig()
    network = build_network(config).eval()
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    size = config.image.stored_px
    states = Observations(
        rng.integers(0, 256, (_STATES, size, size, 3), dtype=np.uint8),
        rng.random(_STATES) < 0.5,
        rng.uniform(0, 0.2, _STATES).astype(np.float32),
    )
    singles = [
        Observations(states.image[i : i + 1], states.gripper_closed[i : i + 1], states.height_to_bottom[i : i + 1])
        for i in range(_STATES)
    ]

    def search(observations: Observations) -> None:
        with torch.inference_mode():
            features = network.encode(network.inputs(observations))
            best_action(network, features, observations, cem, generator)

    def batched() -> float:
        search(states)
        return _STATES

    def one_by_one() -> float:
        for single in singles:
            search(single)
        return _STATES

    ours, reference = rates(batched, one_by_one, seconds)
    return line(
        "cem",
        ours,
        reference,
        "states/s",
        "CEM batched over 64 states, compact network, trunk once a state",
        "the same network and search, one state at a time, as tensor2robot's policies do it",
        samples=cem.samples,
        elites=cem.elites,
        iterations=cem.iterations,
        batch=_STATES,
    )
