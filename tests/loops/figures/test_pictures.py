"""The figures themselves: they exist, have the size promised, and show what is where."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from qtopt.config import CameraConfig
from qtopt.loops.evaluate import Evaluated
from qtopt.loops.figures.calibration import Predictions, draw_calibration
from qtopt.loops.figures.curve import Result, draw_curve
from qtopt.loops.figures.film import reel, save_animation, strips
from qtopt.loops.figures.filming import Filmed, Take
from qtopt.loops.figures.search import QMap, SearchScene, draw_search, fingers, to_pixels
from qtopt.loops.figures.style import MOST_BYTES
from qtopt.loops.metrics import wilson
from qtopt.specs import make_action
from qtopt.types import Outcome
from tests.episodes import make_episode
from tests.loops.figures.test_numbers import curve

RUNS = [curve([(1000, 2), (3000, 6), (5000, 7)], "one"), curve([(1500, 3), (4000, 9)], "two")]


def size(path):
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("scale", ["log", "linear"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_curves(tmp_path, count, scale):
    runs = [replace(each, scripted=wilson(3, 10)) for each in RUNS[:count]]
    results = [Result("final", 5000.0, 0.7, (0.6, 0.8), 3)]
    draw_curve(runs, results, tmp_path / "new" / "curve.png", scale=scale, dpi=100)
    assert size(tmp_path / "new" / "curve.png") == (900, 560)


def test_calibration(tmp_path, rng):
    value = rng.random(40)
    draw_calibration(Predictions(value, rng.random(40) < value, 3), tmp_path / "c.png", dpi=120)
    assert size(tmp_path / "c.png") == (900, 768)


def test_calibration_of_a_single_certain_episode(tmp_path):
    draw_calibration(Predictions(np.array([1.0]), np.array([True]), 0), tmp_path / "c.png")
    assert (tmp_path / "c.png").exists()


def test_the_search_is_drawn_where_it_leads(tmp_path, rng):
    camera = CameraConfig(size_px=96)
    actions = np.stack([make_action(tuple(rng.uniform(-0.05, 0.05, 3)), close=bool(n % 2)) for n in range(12)])
    grid = QMap(np.linspace(0.55, 0.65, 4), np.linspace(-0.05, 0.05, 5), rng.random((4, 5)))
    scene = SearchScene(
        image=np.full((96, 96, 3), 150, np.uint8),
        tool_pose=np.array([0.6, 0.0, 0.1, 0.3], np.float32),
        populations=((actions, rng.random(12)), (actions, rng.random(12))),
        elites=3,
        action=actions[1],
        value=0.5,
        closing=grid,
        caption="scene 0",
    )
    draw_search([scene, scene], camera, tmp_path / "s.png", "title", dpi=100)
    assert size(tmp_path / "s.png") == (1000, 535)


def test_fingers_stand_apart_along_the_azimuth_after_the_turn():
    pose = np.array([0.6, 0.0, 0.1, math.pi / 4], np.float32)
    ends = fingers(pose, make_action((0.02, 0.01, -0.05), math.pi / 4))
    np.testing.assert_allclose(ends, [[0.62, -0.04, 0.02], [0.62, 0.06, 0.02]], atol=1e-6)


def test_the_point_looked_at_is_in_the_middle():
    camera = CameraConfig(size_px=384)
    np.testing.assert_allclose(to_pixels(camera, np.array([camera.target_m])), [[192.0, 192.0]])


def take(rng, *, success, steps=3, size_px=96):
    episode = make_episode(rng, steps, size_px=24, success=success)
    frames = tuple((np.full((size_px, size_px, 3), 40 * n, np.uint8),) * (1 + n % 2) for n in range(steps + 1))
    return Take(Evaluated(0, 5, episode, (0.5,) * (steps - 1) + (math.nan,), 0.1), frames)


def test_takes_run_side_by_side_until_the_longest_is_done(tmp_path, rng):
    takes = [take(rng, success=True), take(rng, success=False, steps=5)]
    frames = reel(takes, fps=10, columns=3)
    # five actions: a pause of 3 each and 2, 1, 2, 1, 2 pictures; then the outcome for 16
    assert len(frames) == 5 * 3 + 8 + 16
    assert {frame.shape for frame in frames} == {(96 + 52, 3 * 96, 3)}
    assert frames[-1][2, 2].tolist() == [0x00, 0x9E, 0x73]
    assert frames[-1][2, 98].tolist() == [0xD5, 0x5E, 0x00]
    save_animation(frames, tmp_path / "a.webp", fps=10)
    with Image.open(tmp_path / "a.webp") as film:
        assert film.size == (288, 148)
        assert film.is_animated


def test_strips_are_a_row_for_each_take(rng):
    drawn = strips([take(rng, success=True), take(rng, success=False)])
    assert drawn.shape == (2 * (18 + 144 + 8), 4 * (144 + 8), 3)


def test_a_spectator_changes_nothing(rng):
    """Filmed episodes are those that run without a camera, to the bit, and every action has its pictures."""
    from sim import SimConfig
    from sim.cell import make_cell

    config = SimConfig(objects="unseen", object_count=(4, 4))
    plan = [
        make_action((0.02, -0.01, -0.10)),
        make_action((0.0, 0.0, -0.08), 0.4, close=True),
        make_action((0.01, 0.02, 0.10)),
        make_action(terminate=True),
    ]
    plain, watched = make_cell(config), make_cell(config)
    camera = CameraConfig(size_px=32)
    filmed = Filmed(watched.environment, lambda: watched.camera.picture(camera), fps=10)
    watched.world.watcher = filmed.time_passes
    try:
        for seed in (3, 4):
            first = [environment.start_episode(seed) for environment in (plain.environment, filmed)]
            assert np.array_equal(first[0].observation.image, first[1].observation.image)
            for action in plan:
                one, two = plain.environment.act(action), filmed.act(action)
                assert np.array_equal(one.observation.image, two.observation.image)
                assert np.array_equal(one.tool_pose, two.tool_pose)
            assert one.outcome == two.outcome != Outcome.UNKNOWN
            frames = filmed.take()
            assert len(frames) == len(plan) + 1
            assert len(frames[0]) == 1
            assert all(len(group) > 1 for group in frames[1:4])
            assert frames[1][0].shape == (32, 32, 3)
    finally:
        plain.environment.close()
        watched.environment.close()
