"""Grasps per second on one core: our simulated cell beside KukaDiverseObjectEnv of pybullet_envs."""

import contextlib
import importlib
import io
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qtopt.apps.benches.measure import Result, rates
from qtopt.config import CameraConfig
from qtopt.specs import STEP_XY_M, STEP_YAW_RAD, make_action
from sim import SimConfig, make_environment

_IMAGE_PX = 48
_OBJECTS = 5
_DESCENT_M = 0.03


def measure(seconds: float, seed: int) -> Result:
    """Measures full episodes of a random policy that ends with a grasp attempt; five objects, 48 px images."""
    with _no_output():
        peer = _PeerEpisodes()  # first: much of it speaks to whichever world was opened first
    ours = _OurEpisodes(seed)
    ours_per_s, peer_per_s = rates(ours.run, peer.run, seconds)
    ours.environment.close()
    details = {
        "ours_steps_per_grasp": round(ours.steps / ours.episodes, 2),
        "reference_steps_per_grasp": round(peer.steps / peer.episodes, 2),
        "ours_success": round(ours.successes / ours.episodes, 3),
        "reference_success": round(peer.successes / peer.episodes, 3),
    }
    return Result(
        ours_per_s,
        peer_per_s,
        "grasps/s on one core",
        "random displacement and rotation while descending 3 cm a step, close at the bottom, lift, success check",
        "pybullet_envs KukaDiverseObjectEnv, random continuous actions, its own descent and grasp attempt",
        details,
    )


class _OurEpisodes:
    def __init__(self, seed: int) -> None:
        config = SimConfig(object_count=(_OBJECTS, _OBJECTS))
        self.environment = make_environment(replace(config, camera=CameraConfig(size_px=_IMAGE_PX)), seed)
        self._rng = np.random.default_rng(seed)
        self.steps = self.episodes = self.successes = 0

    def run(self) -> float:
        height_m = self.environment.start_episode().observation.height_to_bottom
        while True:
            x, y = self._rng.uniform(-STEP_XY_M, STEP_XY_M, 2) / 2
            yaw = float(self._rng.uniform(-STEP_YAW_RAD, STEP_YAW_RAD)) / 2
            bottom = height_m <= _DESCENT_M
            result = self.environment.act(make_action((x, y, -min(height_m, _DESCENT_M)), yaw, close=bottom))
            self.steps += 1
            height_m = result.observation.height_to_bottom
            if bottom and not result.truncated:
                result = self.environment.act(make_action(terminate=True))
                self.steps += 1
            if result.terminated or result.truncated:
                self.episodes += 1
                self.successes += int(result.reward > 0.5)
                return 1.0


class _PeerEpisodes:
    """The episodes of ``KukaDiverseObjectEnv``; physics, rendering and episode logic untouched."""

    def __init__(self) -> None:
        self._environment = _peer_class()(renders=False, isDiscrete=False, width=_IMAGE_PX, height=_IMAGE_PX)
        self._environment.reset()
        self.steps = self.episodes = self.successes = 0

    def run(self) -> float:
        with _no_output():
            self._environment.reset()
            done, reward = False, 0.0
            while not done:
                _, reward, done, _ = self._environment.step(self._environment.action_space.sample())
                self.steps += 1
        self.episodes += 1
        self.successes += int(reward > 0)
        return 1.0


def _peer_class() -> Any:
    """Loads the class without the rest of its package, which needs the old gym and an old setuptools."""
    import gymnasium
    import pybullet_data

    vars(np).setdefault("float", float)
    vars(np).setdefault("int", int)
    sys.modules.setdefault("gym", gymnasium)
    sys.modules.setdefault("gym.spaces", gymnasium.spaces)
    sys.modules.setdefault("gym.utils", gymnasium.utils)
    if "pkg_resources" not in sys.modules:
        stand_in = types.ModuleType("pkg_resources")
        vars(stand_in)["parse_version"] = lambda text: tuple(int(part) for part in text.split(".")[:3])
        sys.modules["pkg_resources"] = stand_in
    root = Path(pybullet_data.__file__).parent.parent / "pybullet_envs"
    for name, path in (("pybullet_envs", root), ("pybullet_envs.bullet", root / "bullet")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    return importlib.import_module("pybullet_envs.bullet.kuka_diverse_object_gym_env").KukaDiverseObjectEnv


def _no_output() -> contextlib.AbstractContextManager[object]:
    return contextlib.redirect_stdout(io.StringIO())
