"""Vendors' protocols have no passwords, so what simulates them is for this machine alone."""

from qtopt.errors import ConfigError
from robot_bridge.remote.secrets import is_loopback


def require_loopback(host: str) -> str:
    """Returns ``host``; raises ConfigError unless only this machine reaches it."""
    if not is_loopback(host):
        raise ConfigError(f"host is {host}, expected a loopback address such as 127.0.3.1: nothing is secured here")
    return host
