"""A simulated cell with its parts in reach of the tests."""

import dataclasses

import pytest

from robot_bridge import GraspEnv
from sim import SimConfig
from sim.bin import SimBin
from sim.camera import SimCamera
from sim.hand import Hand
from sim.robot import SimDetector, SimRobot
from sim.world import World


@dataclasses.dataclass
class Cell:
    world: World
    hand: Hand
    camera: SimCamera
    robot: SimRobot
    detector: SimDetector
    keeper: SimBin
    environment: GraspEnv


def build_cell(config, seed=0):
    """Puts a cell together as ``make_environment`` does."""
    world = World()
    hand = Hand(world)
    camera = SimCamera(world, hand, config.camera)
    robot = SimRobot(world, hand, camera)
    detector = SimDetector(world, hand)
    keeper = SimBin(world, hand, camera, robot, config, seed)
    return Cell(
        world, hand, camera, robot, detector, keeper, GraspEnv(robot, camera, detector, keeper, config.cell, seed)
    )


@pytest.fixture
def cell():
    cell = build_cell(SimConfig(object_count=(5, 5)))
    yield cell
    cell.environment.close()


@pytest.fixture
def cell_of():
    """Builds cells of any configuration and closes them in the end."""
    built = []

    def build(seed=0, **settings):
        built.append(build_cell(SimConfig(**settings), seed))
        return built[-1]

    yield build
    for each in built:
        each.environment.close()
