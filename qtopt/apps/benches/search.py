"""States per second of the paper's network at 472 px: CEM as it is done here, beside the whole network per candidate.

What makes the difference is that the action joins after the trunk, so that a state's image is looked at once and not
once a candidate; the rest is BatchNorm folded away and maps that stay in the cache.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtopt.agent import targets
from qtopt.agent.build import build_network
from qtopt.agent.cem import CemConfig
from qtopt.agent.network import PAPER_PROFILE, Features, Inputs, QNetwork, fold_batch_norm
from qtopt.agent.paper import PaperNetwork
from qtopt.agent.search import best_action
from qtopt.apps.benches.measure import Line, Settings, line
from qtopt.types import Observations, Transitions

_AT_ONCE = 8  # candidates whose images the reference holds at a time: 64 would take 9 GB
_STATES = 4
_TARGET = targets.TargetConfig()
_TURNS = 3
_UNIT = "states/s of one core's time"


class _InOnePiece(PaperNetwork):
    """The paper's network as it is usually written: a batch goes through whole."""

    _in_portions = False


class WholeNetworkPerCandidate(QNetwork):
    """The same network with the image replicated for each candidate: nothing is shared between them."""

    def __init__(self, network: QNetwork) -> None:
        super().__init__(network.config)
        self.network = _InOnePiece(network.config).eval().requires_grad_(requires_grad=False)
        self.network.load_state_dict(network.state_dict())

    def encode(self, inputs: Inputs) -> Features:
        """Only keeps the inputs."""
        return {"pixels": inputs.pixels, "corner": inputs.corner, "state": inputs.state}

    def score(self, features: Features, actions: Tensor) -> Tensor:
        """Runs the whole network on each of the candidates (1, N, 8), some at a time."""
        scores = []
        for few in torch.split(actions[0], _AT_ONCE):
            inputs = Inputs(*(torch.cat([features[name]] * len(few)) for name in ("pixels", "corner", "state")))
            scores.append(self.network.score(self.network.encode(inputs), few[:, None])[:, 0])
        return torch.cat(scores)[None]


def measure(settings: Settings) -> list[Line]:
    """Measures the choice of one action, and the labelling of a transition; one whole state of the reference each."""
    torch.manual_seed(settings.seed)
    rng, generator = np.random.default_rng(settings.seed), torch.Generator().manual_seed(settings.seed)
    plain = build_network(PAPER_PROFILE).eval().requires_grad_(requires_grad=False)
    folded, whole, cem = fold_batch_norm(plain), WholeNetworkPerCandidate(plain), CemConfig()
    one, some = _transitions(rng, 1), _transitions(rng, _STATES)

    def act(network: QNetwork, observations: Observations) -> None:
        features = network.encode(network.inputs(observations))
        best_action(network, features, observations, cem, generator)

    def label(network: QNetwork, transitions: Transitions) -> None:
        targets.label(network, network, transitions, 1, config=_TARGET, cem=cem, generator=generator)

    with torch.inference_mode():
        acting = _in_turns(lambda: act(folded, one.next), lambda: act(whole, one.next), 1)
        labelling = _in_turns(lambda: label(folded, some), lambda: label(whole, one), _STATES)
    shared: dict[str, Any] = {
        "samples": cem.samples,
        "iterations": cem.iterations,
        "threads": settings.threads,
        "bfloat16": folded.in_bfloat16,
        "reference_states": 1,
    }
    reference_name = "the same search, one state at a time, the whole network on every candidate, 8 at a time"
    ours_name = "paper network, 472 px: trunk once a state, BatchNorm folded"
    return [
        line("cem action", *acting, _UNIT, f"{ours_name}, one state at a time", reference_name, **shared),
        line("cem label", *labelling, _UNIT, f"{ours_name}, {_STATES} states at a time", reference_name, **shared),
    ]


def _in_turns(ours: Callable[[], None], reference: Callable[[], None], states: int) -> tuple[float, float]:
    """Returns states per second: ours before, between and after, the median; the reference's one state, run whole."""
    ours()
    times = [_seconds(ours) for _ in range(_TURNS)]
    once = _seconds(reference)
    times += [_seconds(ours) for _ in range(_TURNS)]
    return states / statistics.median(times), 1 / once


def _seconds(work: Callable[[], None]) -> float:
    """Processor time: the reference runs once, for long enough to meet any other work of the machine."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _transitions(rng: np.random.Generator, count: int) -> Transitions:
    size = PAPER_PROFILE.image.stored_px
    following = Observations(
        rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        np.zeros(count, np.bool_),
        rng.uniform(0, 0.2, count).astype(np.float32),
    )
    nothing = np.zeros(count, np.bool_)
    return Transitions(
        np.arange(count), np.zeros(count, np.float32), nothing, following, np.ones(count, np.int64), nothing
    )
