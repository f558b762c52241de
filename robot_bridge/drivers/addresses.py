"""Where an arm is reached: in numbers, because its locks are kept for its address, and a name has several."""

import ipaddress

from qtopt.errors import ConfigError


def require_address(host: str) -> None:
    """Raises ConfigError unless ``host`` is an IPv4 address in its usual form."""
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        raise ConfigError(
            f"arm host is {host!r}, expected an IPv4 address in numbers, such as 192.168.1.203: locks are kept for it"
        ) from None
