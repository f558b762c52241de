"""The simulated cell under its Gymnasium name, ``qtopt/KukaGrasp-v0``."""

import gymnasium

from robot_bridge.gym_env import GymGraspEnv
from sim.cell import make_environment
from sim.config import SimConfig

ENVIRONMENT_ID = "qtopt/KukaGrasp-v0"


def make_gym_environment(render_mode: str | None = None, config: SimConfig | None = None) -> GymGraspEnv:
    """Returns the simulated cell as a ``gymnasium.Env``; what ``gymnasium.make("qtopt/KukaGrasp-v0")`` calls."""
    config = config if config is not None else SimConfig()
    return GymGraspEnv(make_environment(config), config.camera.size_px, render_mode)


def register() -> None:
    """Makes the name known to Gymnasium; a second call does nothing."""
    if ENVIRONMENT_ID not in gymnasium.registry:
        gymnasium.register(ENVIRONMENT_ID, entry_point=f"{__name__}:make_gym_environment")
