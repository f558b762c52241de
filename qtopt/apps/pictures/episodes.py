"""Episodes run to be drawn: on unseen objects, with a spectator's camera, or with the search written down."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from qtopt.agent.cem import CemConfig
from qtopt.agent.network import QNetwork
from qtopt.agent.policy import CemPolicy
from qtopt.agent.snapshot import load_policy_network, read_header
from qtopt.agent.trace import TracedPolicy
from qtopt.config import CameraConfig
from qtopt.interfaces import Environment, Policy
from qtopt.loops.checkpoints import POLICY_FILE
from qtopt.loops.evaluate import Evaluated, EvaluationConfig, evaluate
from qtopt.loops.figures.filming import Filmed, Take
from qtopt.loops.figures.search import QMap, SearchScene
from qtopt.specs import CLOSE, STEP_XY_M, STEP_Z_M, make_action
from qtopt.types import FloatArray, Observation
from robot_bridge.config import MotionLimits
from sim import SimConfig
from sim.cell import Cell, make_cell
from sim.double import Double

SPECTATOR = CameraConfig(position_m=(0.97, 0.46, 0.50), target_m=(0.60, 0.0, 0.09), fov_deg=40.0)
"""Opposite the arm, which hides less of the bin from there than from the policy's camera."""
_YAWS, _HEIGHTS_M, _PLACES = 16, (0.005, 0.015, 0.03), 33


@dataclass(frozen=True)
class Stage:
    """What is played: networks, their gradient steps, the cell, and how much is run and shown."""

    network: QNetwork
    step: int
    sim: SimConfig
    cem: CemConfig
    episodes: int
    shown: int
    seed: int
    size_px: int
    finer: int
    fps: float


def stage(checkpoint: Path, sim: SimConfig, cem: CemConfig, **settings: object) -> Stage:
    """Returns the stage of a checkpoint's networks: the camera is theirs, the objects are unseen."""
    payload = (checkpoint / POLICY_FILE).read_bytes()
    network = load_policy_network(payload)
    size = network.config.image.stored_px
    camera = network.config.camera if network.config.kind == "compact" else replace(sim.camera, size_px=size)
    cell = replace(sim, objects="unseen", fresh_scene_every_episode=True, camera=camera)
    return Stage(network, int(read_header(payload)["step"]), cell, cem, **settings)  # type: ignore[arg-type]


def policy_camera(stage: Stage) -> CameraConfig:
    """Returns the policy's camera with a spectator's resolution."""
    return replace(stage.sim.camera, size_px=stage.size_px)


def film(stage: Stage) -> list[Take]:
    """Returns filmed episodes, the good ones first: as many good as failed ones, where there are enough of both.

    All are run unseen first, then those chosen again with the camera on: the same scenes, the same chance.
    """
    with _cell(stage) as cell:
        policy = CemPolicy(stage.network, stage.cem)
        indices = range(stage.episodes)
        ran = [_play(stage, cell.environment, policy, index) for index in _progress(indices, "looking for episodes")]
        chosen = choose([one.episode.success for one in ran], stage.shown)
        with _filmed(stage, cell, replace(SPECTATOR, size_px=stage.size_px), stage.fps) as filmed:
            return [Take(_play(stage, filmed, policy, index), filmed.take()) for index in _progress(chosen, "filming")]


def choose(success: list[bool], most: int) -> list[int]:
    """Returns which episodes to show: good ones, then failed ones, half and half as far as there are enough."""
    good = [index for index, won in enumerate(success) if won]
    failed = [index for index, won in enumerate(success) if not won]
    count = min(len(good), max(most // 2, most - len(failed)))
    return good[:count] + failed[: most - count]


def search(stage: Stage) -> list[SearchScene]:
    """Returns the searches that first decided to close, one each of as many scenes as are shown."""
    scenes: list[SearchScene] = []
    with _cell(stage) as cell:
        policy = TracedPolicy(stage.network, stage.cem)
        with _filmed(stage, cell, policy_camera(stage), fps=0.0) as filmed:
            for index in _progress(range(stage.shown), "searching"):
                one = _play(stage, filmed, policy, index)
                scenes.append(_scene(stage, policy, one, filmed))
    return scenes


def closing_map(
    policy: TracedPolicy, observation: Observation, tool_pose: FloatArray, limits: MotionLimits, places: int = _PLACES
) -> QMap:
    """Returns Q of closing over the places within reach of one action, at the azimuth and height where Q is highest.

    Args:
        policy: whose Q.
        observation: the state.
        tool_pose: (4,), where the tool is then [m, rad].
        limits: where the tool may go.
        places: points along x and along y.
    """
    x, y = (
        np.linspace(max(low, tool - STEP_XY_M), min(high, tool + STEP_XY_M), places)
        for low, high, tool in zip(limits.low_m[:2], limits.high_m[:2], tool_pose.tolist()[:2], strict=True)
    )
    turns = np.linspace(-np.pi / 2, np.pi / 2, _YAWS, endpoint=False)
    best: FloatArray | None = None
    for z in _HEIGHTS_M:
        down = max(z - observation.height_to_bottom, -STEP_Z_M)
        for turn in turns.tolist():
            actions = np.tile(make_action((0.0, 0.0, down), turn, close=True), (places * places, 1))
            offsets = np.stack(np.meshgrid(x - tool_pose[0], y - tool_pose[1], indexing="ij"), -1)
            actions[:, :2] = offsets.reshape(-1, 2)
            q = policy.values(observation, actions)
            if best is None or q.max() > best.max():
                best = q
    assert best is not None
    return QMap(x, y, best.reshape(places, places).astype(np.float64))


def _scene(stage: Stage, policy: TracedPolicy, one: Evaluated, filmed: Filmed) -> SearchScene:
    episode = one.episode
    closings = [step for step, found in enumerate(policy.searches) if found.decision.action[CLOSE] > 0.5]
    step = closings[0] if closings else 0
    found = policy.searches[step]
    observation = Observation(
        episode.images[step], bool(episode.gripper_closed[step]), float(episode.height_to_bottom[step])
    )
    outcome = episode.outcome.name.lower().replace("_", " ").replace("success", "held")
    return SearchScene(
        image=filmed.take()[step][-1],
        tool_pose=episode.tool_pose[step],
        populations=found.populations,
        elites=stage.cem.elites,
        action=found.decision.action,
        value=found.decision.value,
        closing=closing_map(policy, observation, episode.tool_pose[step], stage.sim.cell.limits),
        caption=f"scene {one.index}, action {step + 1}\n(in the end: {outcome})",
    )


def _play(stage: Stage, environment: Environment, policy: Policy, index: int) -> Evaluated:
    """Runs episode ``index`` of the evaluation, exactly as ``qtopt eval`` with this seed does."""
    alone = EvaluationConfig(stage.episodes, stage.seed, shard=index, shards=max(stage.episodes, index + 1))
    return next(evaluate(environment, policy, config=alone))


@contextmanager
def _cell(stage: Stage) -> Iterator[Cell]:
    cell = make_cell(stage.sim)
    try:
        yield cell
    finally:
        cell.environment.close()


@contextmanager
def _filmed(stage: Stage, cell: Cell, camera: CameraConfig, fps: float) -> Iterator[Filmed]:
    double = Double(cell, stage.sim, camera, stage.finer)
    filmed = Filmed(cell.environment, double, fps)
    cell.world.watcher = filmed.time_passes
    try:
        yield filmed
    finally:
        cell.world.watcher = None
        double.close()


def _progress(items: Sequence[int], words: str) -> Iterator[int]:
    yield from track(items, words, console=Console(stderr=True), transient=True)
