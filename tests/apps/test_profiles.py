"""The profiles that ship are what they say."""

from pathlib import Path

from qtopt.agent.learner import PAPER_LEARNER
from qtopt.apps.plan import Config
from qtopt.config import load_yaml

PROFILES = Path(__file__).parents[2] / "deploy" / "profiles"


def test_paper_profile_has_the_published_constants() -> None:
    config = load_yaml(Config, PROFILES / "paper.yaml")
    assert config.learner == PAPER_LEARNER
    assert (config.cem.samples, config.cem.elites, config.cem.iterations) == (64, 6, 2)
    assert config.discount == 0.9
    assert config.sim.cell.step_penalty == 0.05


def test_every_profile_loads() -> None:
    files = sorted(PROFILES.glob("*.yaml"))
    assert files
    for file in files:
        load_yaml(Config, file)
