"""The figures themselves: they exist, have the size promised, and show what is where."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from qtopt.agent.exploration import ScriptedPolicy
from qtopt.config import CameraConfig
from qtopt.loops.evaluate import Evaluated, EvaluationConfig, evaluate
from qtopt.loops.figures.calibration import Predictions, draw_calibration
from qtopt.loops.figures.curve import Result, draw_curve
from qtopt.loops.figures.film import reel, save_animation, strips
from qtopt.loops.figures.filming import Filmed, Take
from qtopt.loops.figures.search import QMap, SearchScene, draw_search, fingers, to_pixels
from qtopt.loops.figures.style import MOST_BYTES
from qtopt.loops.metrics import wilson
from qtopt.specs import make_action
from sim import SimConfig
from sim.cell import make_cell
from sim.double import Double
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
    runs = [replace(each, scripted={1000: wilson(3, 10)}) for each in RUNS[:count]]
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
    return Take(
        Evaluated(
            index=0,
            scene=0,
            attempt=1,
            scene_seed=5,
            episode=episode,
            values=(0.5,) * (steps - 1) + (math.nan,),
            policy_s=0.1,
        ),
        frames,
    )


def test_takes_run_side_by_side_until_the_longest_is_done(tmp_path, rng):
    takes = [take(rng, success=True), take(rng, success=False, steps=5)]
    frames = reel(takes, fps=10)
    # five actions: a pause of 3 each and 2, 1, 2, 1, 2 pictures; then the outcome for 16
    assert len(frames) == 5 * 3 + 8 + 16
    assert {frame.shape for frame in frames} == {(96 + 52, 2 * 96, 3)}
    assert frames[-1][2, 2].tolist() == [0x00, 0x9E, 0x73]
    assert frames[-1][2, 98].tolist() == [0xD5, 0x5E, 0x00]
    save_animation(frames, tmp_path / "a.webp", fps=10)
    with Image.open(tmp_path / "a.webp") as film:
        assert film.size == (192, 148)
        assert film.is_animated


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3), (6, 2, 3)])
def test_a_film_has_as_few_empty_cells_as_may_be(rng, count, rows, columns):
    frame = reel([take(rng, success=True, steps=1)] * count, fps=5)[0]
    assert frame.shape == (rows * (96 + 52), columns * 96, 3)


def test_strips_are_a_row_for_each_take(rng):
    drawn = strips([take(rng, success=True), take(rng, success=False)])
    assert drawn.shape == (2 * (18 + 144 + 8), 4 * (144 + 8), 3)


def test_a_spectator_changes_nothing():
    """Filmed episodes are those that run without a camera, to the bit, and every motion has its pictures."""
    config = SimConfig(objects="unseen", object_count=(3, 6))
    cell = make_cell(config)
    double = Double(cell, config, CameraConfig(size_px=32))
    filmed = Filmed(cell.environment, double, fps=8)
    policy = ScriptedPolicy()
    try:
        for index in range(4):
            plan = EvaluationConfig(4, 0, shard=index, shards=4)
            cell.world.watcher = None
            plain = next(evaluate(cell.environment, policy, config=plan)).episode
            cell.world.watcher = filmed.time_passes
            watched = next(evaluate(filmed, policy, config=plan)).episode
            assert np.array_equal(plain.images, watched.images)
            assert np.array_equal(plain.tool_pose, watched.tool_pose)
            assert plain.outcome == watched.outcome
            frames = filmed.take()
            assert len(frames) == len(plain) + 1
            assert len(frames[0]) == 1
            assert all(frames[1:])
            assert sum(map(len, frames)) > 2 * len(plain)
            assert frames[1][0].shape == (32, 32, 3)
    finally:
        double.close()
        cell.environment.close()


def test_the_double_looks_like_the_cell():
    config = SimConfig(objects="unseen", object_count=(4, 4))
    cell = make_cell(config)
    double = Double(cell, config, CameraConfig())
    try:
        cell.environment.start_episode(5)
        double.begin(5)
        for action in (make_action((0.02, -0.01, -0.10)), make_action((0.0, 0.03, -0.08), 0.4, close=True)):
            cell.environment.act(action)
            difference = double.picture().astype(int) - cell.camera.picture(CameraConfig(), finer=1)
            assert np.mean(np.abs(difference).max(2) > 8) < 0.002, "ten of 5184 pixels, on edges"
    finally:
        double.close()
        cell.environment.close()
