"""Waiting for what another thread or process brings about."""

import time


def wait_until(true, seconds=30.0):
    """Returns when ``true()`` is; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found
