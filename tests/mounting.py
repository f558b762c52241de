"""File systems of their own for tests, where mounting is allowed."""

import contextlib

import pytest

from qtopt.errors import ConfigError


@contextlib.contextmanager
def mounted_or_skipped(disk):
    """Gives what mounting ``disk``, a context manager, gives; skips the test where it is not allowed."""
    with contextlib.ExitStack() as mounted:
        try:
            place = mounted.enter_context(disk)
        except ConfigError as error:
            pytest.skip(str(error))
        yield place
