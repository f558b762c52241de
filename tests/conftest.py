"""What every test shares: one thread per numeric library, a seeded generator, identifiable episodes."""

import os

# Before any library starts its threads: two cores are shared by the test workers and by the processes that they start.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.episodes import make_episode

settings.register_profile("qtopt", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qtopt")


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def episode(rng):
    """A legal random episode of five actions."""
    return make_episode(rng, steps=5)
