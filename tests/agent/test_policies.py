"""Policies stay inside the action space, repeat with a seed and know nothing but the observation."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qtopt.agent.build import build_network
from qtopt.agent.cem import CemConfig
from qtopt.agent.exploration import ExplorationConfig, ExploringPolicy, ScriptedConfig, ScriptedPolicy
from qtopt.agent.network import Features, Inputs, NetworkConfig, QNetwork
from qtopt.agent.policy import CemPolicy
from qtopt.agent.search import to_actions
from qtopt.agent.targets import clipped_value
from qtopt.config import Reach
from qtopt.errors import ConfigError
from qtopt.interfaces import Policy
from qtopt.specs import ACTION_SPEC, CLOSE, OPEN, STEP_XY_M, STEP_Z_M, TERMINATE, make_action
from qtopt.types import Behaviour, Observation
from tests.agent.examples import TINY, observations


def observation(rng: np.random.Generator) -> Observation:
    image = rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)
    return Observation(image, bool(rng.random() < 0.5), float(rng.uniform(0, 0.2)))


def learned() -> CemPolicy:
    torch.manual_seed(0)
    return CemPolicy(build_network(TINY))


def make(name: str) -> Policy:
    if name == "scripted":
        return ScriptedPolicy()
    if name == "greedy":
        return learned()
    return ExploringPolicy(ScriptedPolicy(), learned(), ExplorationConfig(), step=5_000)


@pytest.mark.parametrize("name", ["scripted", "greedy", "exploring"])
def test_actions_are_legal_and_repeatable(name: str) -> None:
    runs = []
    for _ in range(2):
        rng, policy = np.random.default_rng(3), make(name)
        actions = []
        for _ in range(15):
            policy.begin_episode(rng)
            for _ in range(5):
                action = policy.select(observation(rng)).action
                ACTION_SPEC.validate(action)
                assert np.all(np.abs(action[:3]) <= np.array([STEP_XY_M, STEP_XY_M, STEP_Z_M]) + 1e-6)
                assert action[3] ** 2 + action[4] ** 2 == pytest.approx(1.0, abs=1e-5)
                assert set(action[5:].tolist()) <= {0.0, 1.0}
                assert not (action[CLOSE] and action[OPEN])
                actions.append(action)
        runs.append(np.array(actions))
    assert np.array_equal(runs[0], runs[1])


def test_script_closes_at_the_bottom_then_terminates() -> None:
    policy = ScriptedPolicy()
    rng = np.random.default_rng(0)
    image = np.zeros((36, 36, 3), np.uint8)
    finished = 0
    for _ in range(30):
        policy.begin_episode(rng)
        height, closed = 0.18, False
        for _ in range(20):
            action = policy.select(Observation(image, closed, height)).action
            height = max(0.0, height + float(action[2]))
            closed = (closed or bool(action[CLOSE])) and not action[OPEN]
            if action[TERMINATE]:
                finished += 1
                break
    assert finished >= 28


def test_hands_over_from_the_script_as_gradient_steps_pass() -> None:
    config = ExplorationConfig(scripted_until_step=100, learned_from_step=300, scripted_share_end=0.2)
    assert config.scripted_share(99) == 1.0
    assert config.scripted_share(200) == pytest.approx(0.6)
    assert config.scripted_share(10**6) == pytest.approx(0.2)
    assert config.without_scripted_phase().scripted_share(0) == pytest.approx(0.2)
    policy = ExploringPolicy(ScriptedPolicy(), None, config)
    rng = np.random.default_rng(0)
    for _ in range(20):
        policy.begin_episode(rng)
        assert policy.select(observation(rng)).behaviour in (Behaviour.SCRIPTED, Behaviour.RANDOM)


def test_shares_are_checked() -> None:
    with pytest.raises(ConfigError, match="epsilon is 2"):
        ExplorationConfig(epsilon=2)


@pytest.mark.parametrize(
    "settings", [{"grasp_height_m": (0.03, 0.01)}, {"wander_m": -0.1}, {"retry": 1.5}, {"random_action": -0.1}]
)
def test_habits_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"script {next(iter(settings))}"):
        ScriptedConfig(**settings)


def test_modes_become_flags_that_fit_the_gripper() -> None:
    point = torch.tensor([[0.01, 0.02, 0.03, np.pi / 2]] * 4)
    actions = to_actions(point, torch.tensor([0, 1, 1, 2]), torch.tensor([False, False, True, True]))
    assert actions[:, 5:].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert actions[0, :5].tolist() == pytest.approx([0.01, 0.02, 0.03, 1.0, 0.0], abs=1e-6)
    assert actions[3, :5].tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0], abs=1e-6)


def test_an_open_hand_never_ends_the_episode() -> None:
    policy, rng = learned(), np.random.default_rng(0)
    image = np.zeros((36, 36, 3), np.uint8)
    for _ in range(50):
        policy.begin_episode(rng)
        assert policy.select(Observation(image, gripper_closed=False, height_to_bottom=0.1)).action[TERMINATE] == 0


class Impatient(QNetwork):
    """Believes that ending the episode is worth more than anything else."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.anchor = nn.Parameter(torch.zeros(1))

    def encode(self, inputs: Inputs) -> Features:
        return {"state": inputs.state}

    def score(self, features: Features, actions: Tensor) -> Tensor:
        return actions[..., TERMINATE]


@pytest.mark.parametrize(("lifted_m", "height", "ends"), [(0.08, 0.0799, 0), (0.08, 0.0801, 1), (0.0, 0.0799, 1)])
def test_a_hand_too_low_to_hold_anything_up_never_ends_the_episode(lifted_m: float, height: float, ends: int) -> None:
    policy = CemPolicy(Impatient(replace(TINY, reach=Reach(lifted_m=lifted_m))))
    policy.begin_episode(np.random.default_rng(0))
    observation = Observation(np.zeros((36, 36, 3), np.uint8), gripper_closed=True, height_to_bottom=height)
    assert policy.select(observation).action[TERMINATE] == ends


def test_the_scripted_rule_ends_high_with_closed_fingers_and_nowhere_else() -> None:
    torch.manual_seed(0)
    policy = CemPolicy(build_network(replace(TINY, terminate_above_m=0.1)))
    rng = np.random.default_rng(0)
    image = np.zeros((36, 36, 3), np.uint8)
    for _ in range(30):
        policy.begin_episode(rng)
        for closed, height, ends in ((True, 0.1001, 1), (True, 0.0999, 0), (False, 0.2, 0), (True, 0.25, 1)):
            assert policy.select(Observation(image, closed, height)).action[TERMINATE] == ends


def test_labels_follow_the_scripted_rule_too() -> None:
    torch.manual_seed(0)
    network = build_network(replace(TINY, terminate_above_m=0.1)).eval()
    states = observations(np.random.default_rng(0), 3, 36)
    states = replace(
        states,
        gripper_closed=np.array([True, True, False]),
        height_to_bottom=np.array([0.2, 0.05, 0.2], np.float32),
    )
    end = torch.from_numpy(make_action(terminate=True)).expand(3, 1, -1)
    with torch.no_grad():
        q_end = network.score(network.encode(network.inputs(states)), end)[:, 0].sigmoid()
        value, _ = clipped_value(network, None, states, CemConfig(), torch.Generator().manual_seed(0))
    same = torch.isclose(value, q_end, atol=1e-6)
    assert same.tolist() == [True, False, False]
