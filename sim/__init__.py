"""The simulated cell: a KUKA arm with a two-finger gripper over a bin of procedural objects, in PyBullet.

Importing this package makes ``qtopt/KukaGrasp-v0`` known to Gymnasium. Without Gymnasium::

    environment = make_environment(SimConfig(objects="train"), seed=0)
    first = environment.start_episode()
"""

from sim.cell import make_environment
from sim.config import Randomisation, SimConfig
from sim.gym_registration import make_gym_environment, register

__all__ = ["Randomisation", "SimConfig", "make_environment", "make_gym_environment"]

register()
