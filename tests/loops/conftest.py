"""The real parts that the loops are tested with: a simulated cell, a store in memory, a small network."""

import hashlib

import numpy as np
import pytest

from qtopt.replay import MemoryStore, StoreFormat
from qtopt.types import ModelSnapshot
from sim import SimConfig, make_environment
from tests.episodes import make_episode

SIZE_PX = 72


class Models:
    """A registry in memory."""

    def __init__(self):
        self.published = []

    def publish(self, step, payload):
        digest = hashlib.sha256(payload).hexdigest()
        self.published.append(ModelSnapshot(len(self.published) + 1, step, payload, digest))
        return len(self.published)

    def latest(self, newer_than=0):
        return self.published[-1] if len(self.published) > newer_than else None


@pytest.fixture
def models():
    return Models()


@pytest.fixture(scope="module")
def environment():
    environment = make_environment(SimConfig(object_count=(3, 3)), seed=0)
    yield environment
    environment.close()


@pytest.fixture
def memory():
    with MemoryStore(StoreFormat.for_images(SIZE_PX), rng=np.random.default_rng(0)) as store:
        yield store


@pytest.fixture
def filled(memory, rng):
    """A store with twenty episodes of noise."""
    for number in range(20):
        memory.append(make_episode(rng, steps=3, size_px=SIZE_PX, success=number % 2 == 0))
    return memory
