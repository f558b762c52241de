"""The simulated cell: a KUKA arm with a two-finger gripper over a bin of procedural objects, in PyBullet.

Example::

    environment = make_environment(SimConfig(objects="train"), seed=0)
    first = environment.start_episode()
"""

from sim.cell import make_environment
from sim.config import Randomisation, SimConfig

__all__ = ["Randomisation", "SimConfig", "make_environment"]
