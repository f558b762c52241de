"""Where calls come from: an address, and the network that stands for whoever has it."""

import ipaddress
from typing import Final
from urllib.parse import unquote

from qtopt.rpc.interceptors import Context

_HOST_BITS: Final = 64
"""An IPv6 network's owner has so many bits of addresses to choose from."""


def peer_of(context: Context) -> str:
    """Returns the caller's address as ``10.0.0.7:40100``, ``[fd00::7]:40100`` or ``unix:...``."""
    peer = unquote(context.peer())
    return peer.removeprefix("ipv4:").removeprefix("ipv6:")


def network_of(peer: str) -> str:
    """Returns whom an address is counted as: its IPv4 address, its IPv6 /64, or what it says instead of either."""
    host = peer.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> _HOST_BITS << _HOST_BITS, 128 - _HOST_BITS)))
