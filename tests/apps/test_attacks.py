"""Every attack of the drill, on one real server, while a good client uses it."""

import pytest

from qtopt.apps.drills.attackers import ATTACKS
from qtopt.apps.drills.attacks import attack, is_fine, scene

pytestmark = [pytest.mark.serial, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def on(tmp_path_factory):
    with scene(tmp_path_factory.mktemp("attacked")) as running:
        yield running


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_logged_and_disturbs_nobody(on, name):
    found = attack(on, name)
    assert is_fine(found), found
