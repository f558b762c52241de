"""The bin: what is in it, when it is filled anew."""

import numpy as np
import pytest

from qtopt.types import Outcome
from sim.bullet import bullet
from sim.config import SimConfig
from sim.furniture import BIN_CENTRE_M, BIN_HALF_M
from sim.objects import object_numbers, object_parts, object_path


def test_objects_are_split_and_all_there():
    train, unseen = object_numbers("train"), object_numbers("unseen")
    assert (len(train), len(unseen)) == (900, 100)
    assert not set(train) & set(unseen)
    assert all(number % 10 == 0 for number in unseen)
    assert train == sorted(train)
    assert all(object_path(number).is_file() for number in (*train[::97], *unseen[::9]))


def test_boxes_enclose_the_parts():
    parts = object_parts(1, 1.0)
    low, high = parts.boxes(np.zeros(3), np.eye(3))
    assert len(low) == len(parts.starts)
    np.testing.assert_allclose(low.min(0), parts.vertices.min(0))
    np.testing.assert_allclose(high.max(0), parts.vertices.max(0))


@pytest.mark.parametrize("number", object_numbers("other"))
def test_other_objects_load_rest_and_fit_the_gripper(cell, number):
    body = cell.world.add_object(number, (*BIN_CENTRE_M, 0.06), (0.0, 0.0, 0.0, 1.0), scale=1.0)
    lows, highs = cell.world._part_boxes(body)
    low, high = lows.min(0), highs.max(0)
    bounds = bullet.getAABB(body, physicsClientId=cell.world.client)
    np.testing.assert_allclose([low, high], bounds, atol=0.005)  # Bullet's have a margin
    longest = (high - low).max()
    assert 0.03 <= longest <= 0.085
    assert np.sort(high - low)[1] < 0.08
    cell.world.settle(480)
    assert body not in cell.world.awake
    assert 0.0 < cell.world.position(body)[2] < 0.06


def test_other_objects_are_numbered_apart(cell_of):
    other = object_numbers("other")
    assert min(other) == 1000
    assert len(other) >= 10
    objects = cell_of(objects="other", object_count=(10, 10)).environment.start_episode(0).metadata["objects"]
    assert set(objects) <= set(other)


def test_a_kept_scene_is_never_filled_anew(cell_of):
    cell = cell_of(keep_scene=True, stuck_after=1, object_count=(2, 2))
    first = cell.environment.start_episode(0).metadata["objects"]
    cell.keeper.finish(Outcome.NOTHING_GRASPED)
    assert cell.environment.start_episode().metadata["objects"] == first
    for body in list(cell.world.objects):
        cell.world.remove_object(body)
    assert cell.environment.start_episode().metadata["objects"] == []
    assert len(cell.environment.start_episode(0).metadata["objects"]) == 2


def test_objects_lie_in_the_bin_and_rest(cell):
    for seed in range(3):
        cell.environment.start_episode(seed)
        assert len(cell.world.objects) >= 3
        for body in cell.world.objects:
            position = np.array(cell.world.position(body))
            assert np.all(np.abs(position[:2] - BIN_CENTRE_M) <= BIN_HALF_M)
            assert -0.01 < position[2] < 0.2


def test_objects_stay_between_episodes(cell):
    cell.environment.start_episode(0)
    before = {body: cell.world.position(body) for body in cell.world.objects}
    cell.keeper.finish(Outcome.NOTHING_GRASPED)
    cell.environment.start_episode()
    assert {body: cell.world.position(body) for body in cell.world.objects} == before


def test_filled_anew_when_empty(cell):
    cell.environment.start_episode(0)
    for body in list(cell.world.objects):
        cell.world.remove_object(body)
    cell.environment.start_episode()
    assert len(cell.world.objects) >= 3


def test_filled_anew_when_stuck(cell):
    first = cell.environment.start_episode(0).metadata["objects"]
    for _ in range(SimConfig().stuck_after):
        assert cell.environment.start_episode().metadata["objects"] == first
        cell.keeper.finish(Outcome.NOTHING_GRASPED)
    assert cell.environment.start_episode().metadata["objects"] != first


def test_what_fell_out_is_cleared_away(cell):
    cell.environment.start_episode(0)
    stray = cell.world.add_object(1, (BIN_CENTRE_M[0], 0.4, 0.05), (0.0, 0.0, 0.0, 1.0), scale=1.0)
    cell.environment.start_episode()
    assert stray not in cell.world.objects
