"""A simulated cell, put together."""

from dataclasses import dataclass

from robot_bridge.grasp_env import GraspEnv
from sim.bin import SimBin
from sim.camera import SimCamera
from sim.config import SimConfig
from sim.hand import Hand
from sim.robot import SimDetector, SimRobot
from sim.world import World


@dataclass(frozen=True)
class Cell:
    """A grasping environment with those of its parts that a spectator needs; close the environment when done."""

    environment: GraspEnv
    world: World
    hand: Hand
    camera: SimCamera


def make_environment(config: SimConfig | None = None, seed: int = 0) -> GraspEnv:
    """Returns a grasping environment over a simulated cell of its own; close it when done.

    Two environments made with one configuration and one seed give identical episodes for identical actions.
    """
    return make_cell(config, seed).environment


def make_cell(config: SimConfig | None = None, seed: int = 0) -> Cell:
    """Returns what ``make_environment`` does, and what it is made of."""
    config = config if config is not None else SimConfig()
    world = World()
    hand = Hand(world)
    camera = SimCamera(world, hand, config.camera)
    robot = SimRobot(world, hand, camera)
    keeper = SimBin(world, hand, camera, robot, config, seed)
    environment = GraspEnv(robot, camera, SimDetector(world, hand), keeper, config.cell, seed)
    return Cell(environment, world, hand, camera)
