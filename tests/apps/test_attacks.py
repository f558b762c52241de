"""Every attack of the drill, on one real server, while a good client uses it; and on one that lets all of them in."""

import pytest

from qtopt.apps.drills.attack_lines import GotThrough, Site
from qtopt.apps.drills.attackers import ATTACKS, damaged_weights, no_tls
from qtopt.apps.drills.attacks import attack, is_fine, make_keys, scene
from qtopt.rpc import BackgroundServer, ServerConfig, Services
from tests.rpc.stores import DictStore

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def on(tmp_path_factory):
    with scene(tmp_path_factory.mktemp("attacked")) as running:
        yield running


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_logged_and_disturbs_nobody(on, name):
    found = attack(on, name)
    assert is_fine(found), found


def test_an_attack_that_gets_through_says_so(tmp_path):
    keys = make_keys(tmp_path)
    with BackgroundServer(ServerConfig(port=0), Services((16, 16), DictStore)) as server:
        site = Site(server.port, keys, 16, 1.0)
        with pytest.raises(GotThrough, match="GetStats was answered"):
            no_tls(site)
        with pytest.raises(GotThrough, match=r"refused with UNAVAILABLE .* expected INVALID_ARGUMENT"):
            damaged_weights(site)
