"""The profiles that ship are what they say."""

from pathlib import Path

import pytest

from qtopt.agent.learner import PAPER_LEARNER, LearnerConfig
from qtopt.agent.network import NetworkConfig
from qtopt.agent.targets import TargetConfig
from qtopt.apps.plan import Config
from qtopt.config import Reach, load_yaml
from qtopt.errors import ConfigError
from robot_bridge.config import CellConfig, MotionLimits
from sim.config import SimConfig

PROFILES = Path(__file__).parents[2] / "deploy" / "profiles"


def test_paper_profile_has_the_published_constants() -> None:
    config = load_yaml(Config, PROFILES / "paper.yaml")
    assert config.learner == PAPER_LEARNER
    assert (config.cem.samples, config.cem.elites, config.cem.iterations) == (64, 6, 2)
    assert config.target == TargetConfig(kind="bellman", discount=0.9, target_networks="two")
    assert config.sim.cell.step_penalty == 0.05


def test_every_profile_loads() -> None:
    files = sorted(PROFILES.glob("*.yaml"))
    assert files
    for file in files:
        load_yaml(Config, file)


def test_a_network_that_takes_the_workspace_for_another_is_refused() -> None:
    cell = CellConfig(limits=MotionLimits(high_m=(0.72, 0.10, 0.25)))
    with pytest.raises(ConfigError, match=r"the cell's workspace is .*0\.72.*learner\.network\.reach"):
        Config(sim=SimConfig(cell=cell))
    reach = Reach(high_m=(0.72, 0.10, 0.25))
    Config(sim=SimConfig(cell=cell), learner=LearnerConfig(network=NetworkConfig(reach=reach)))


def test_batches_that_the_limiter_would_hold_for_ever_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"learner\.batch 9000, expected at most"):
        Config(learner=LearnerConfig(batch=9000))
