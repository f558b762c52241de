"""What every test shares: one thread per numeric library, a seeded generator, identifiable episodes."""

import os

# Before any library starts its threads: two cores are shared by the test workers and by the processes that they start.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import pytest_timeout
from hypothesis import HealthCheck, settings

from tests.episodes import make_episode

settings.register_profile("qtopt", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qtopt")


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node):
    """Times the teardown after a failure, and the rerun: pytest-timeout takes its one timer back at a failure."""
    if isinstance(node, pytest.Item):
        settings = pytest_timeout._get_item_settings(node)
        if settings.timeout:
            node.config.hook.pytest_timeout_set_timer(item=node, settings=settings)


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def episode(rng):
    """A legal random episode of five actions."""
    return make_episode(rng, steps=5)
