"""Addresses, and whom they stand for."""

import pytest

from qtopt.rpc.peers import network_of


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("10.0.0.7:40100", "10.0.0.7"),
        ("[2001:db8:1:2:aaaa::7]:40100", "2001:db8:1:2::/64"),
        ("[::ffff:10.0.0.7]:40100", "10.0.0.7"),
        ("[fe80::7%eth0]:40100", "fe80::/64"),
        ("unix:", "unix"),
        ("?", ""),
    ],
)
def test_whoever_has_a_network_of_addresses_is_one(peer, network):
    assert network_of(peer) == network
