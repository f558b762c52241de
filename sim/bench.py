"""Grasps per second of one core's time, beside bullet3's KukaDiverseObjectEnv in the same minute.

Time is the processor's, as both use one thread: what else the machine does then disturbs neither. Both run whole
episodes of a random policy that sinks to the floor of the bin and grasps there: five objects, 48 px images, a frame
for every step. The other environment is asked as it is; it only needs stand-ins for modules that have gone out of use.
"""

import contextlib
import importlib
import io
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pybullet_data

from qtopt.config import CameraConfig
from qtopt.errors import ConfigError
from qtopt.interfaces import Environment
from qtopt.specs import STEP_XY_M, STEP_Z_M, make_action
from qtopt.types import Outcome
from sim.cell import make_environment
from sim.config import SimConfig

_IMAGE_PX, _OBJECTS = 48, 5
_SINK_M = (0.03, 0.06)
_FLOOR_M = 0.012
_TURN_S = 2.0
REFERENCE = "pybullet_envs.bullet KukaDiverseObjectEnv"


def run_random_episode(environment: Environment, rng: np.random.Generator) -> tuple[int, bool]:
    """Sinks with random displacements, closes, lifts beyond the height from which a held object counts, terminates.

    Returns:
        the number of actions and the success.
    """
    observation = environment.start_episode().observation
    steps = 0
    while observation.height_to_bottom > _FLOOR_M and steps < 16:
        x, y = rng.uniform(-STEP_XY_M, STEP_XY_M, 2) / 2
        down = min(float(rng.uniform(*_SINK_M)), observation.height_to_bottom)
        action = make_action((x, y, -down), float(rng.uniform(-0.5, 0.5)))
        observation = environment.act(action).observation
        steps += 1
    environment.act(make_action(close=True))
    environment.act(make_action((0.0, 0.0, STEP_Z_M)))
    result = environment.act(make_action(terminate=True))
    return steps + 3, result.outcome is Outcome.SUCCESS


def run_reference_episode(environment: Any) -> tuple[int, bool]:
    """One episode of random actions in the reference; it sinks and grasps by itself."""
    environment.reset()
    done, reward, steps = False, 0.0, 0
    while not done:
        _, reward, done, _ = environment.step(environment.action_space.sample())
        steps += 1
    return steps, reward > 0


def measure(seconds: float, seed: int = 0) -> dict[str, Any]:
    """Measures both in turns of two seconds until each has had half of ``seconds``.

    Returns:
        ``name``, ``ours`` and ``reference`` [grasps/s], ``ratio``, ``unit``, ``reference_name``, and of each the
        number of ``episodes``, ``success``, ``steps_per_episode`` and ``relative_error``, the standard error of its
        rate as a share of it: few and unequal episodes make a large one.

    Raises:
        ConfigError: the reference cannot be loaded, or ``seconds`` is not positive.
    """
    if seconds <= 0:
        raise ConfigError(f"seconds is {seconds}, expected a positive length of the measurement")
    rng = np.random.default_rng(seed)
    config = SimConfig(object_count=(_OBJECTS, _OBJECTS), camera=CameraConfig(size_px=_IMAGE_PX))
    with reference_environment() as reference:
        ours = make_environment(config, seed)
        run_random_episode(ours, rng)
        meters = (_Meter(lambda: run_random_episode(ours, rng)), _Meter(lambda: run_reference_episode(reference)))
        while any(meter.elapsed_s < seconds / 2 for meter in meters):
            for meter in meters:
                if meter.elapsed_s < seconds / 2:
                    meter.run(min(_TURN_S, seconds / 2))
        ours.close()
    mine, other = meters
    return {
        "name": "sim",
        "ours": round(mine.rate, 3),
        "reference": round(other.rate, 3),
        "ratio": round(mine.rate / other.rate, 2),
        "unit": "grasps/s",
        "reference_name": REFERENCE,
        "image_px": _IMAGE_PX,
        "objects": _OBJECTS,
        "details": {"ours": mine.details(), "reference": other.details()},
    }


class _Meter:
    """Counts episodes and the time they took."""

    def __init__(self, episode: Callable[[], tuple[int, bool]]) -> None:
        self._episode = episode
        self.elapsed_s = self.used_s = 0.0
        self._episodes = self._steps = self._successes = 0
        self._times_s: list[float] = []

    def run(self, seconds: float) -> None:
        started, used = time.perf_counter(), time.process_time()
        while time.perf_counter() - started < seconds:
            begun = time.process_time()
            steps, success = self._episode()
            self._times_s.append(time.process_time() - begun)
            self._episodes += 1
            self._steps += steps
            self._successes += success
        self.elapsed_s += time.perf_counter() - started
        self.used_s += time.process_time() - used

    @property
    def rate(self) -> float:
        return self._episodes / self.used_s

    def _relative_error(self) -> float:
        return float(np.std(self._times_s) / np.mean(self._times_s) / np.sqrt(len(self._times_s)))

    def details(self) -> dict[str, float]:
        return {
            "episodes": self._episodes,
            "wall_s": round(self.elapsed_s, 1),
            "success": round(self._successes / self._episodes, 3),
            "steps_per_episode": round(self._steps / self._episodes, 2),
            "relative_error": round(self._relative_error(), 3),
        }


@contextlib.contextmanager
def reference_environment() -> Iterator[Any]:
    """Yields a KukaDiverseObjectEnv with 48 px images and five objects, as it is by default.

    It imports the old ``gym``, ``pkg_resources`` and numpy's old aliases: stand-ins take their places and are removed
    at the end.
    """
    package_path = Path(pybullet_data.__file__).parents[1] / "pybullet_envs"
    version = types.ModuleType("pkg_resources")
    version.parse_version = lambda text: tuple(int(part) for part in text.split(".")[:3])  # type: ignore[attr-defined]
    outer, inner = types.ModuleType("pybullet_envs"), types.ModuleType("pybullet_envs.bullet")
    outer.__path__, inner.__path__ = [str(package_path)], [str(package_path / "bullet")]
    stand_ins: dict[str, types.ModuleType] = {
        "gym": gymnasium,
        "gym.spaces": gymnasium.spaces,
        "gym.utils": gymnasium.utils,
        "pkg_resources": version,
        outer.__name__: outer,
        inner.__name__: inner,
    }
    kept = {name: sys.modules.get(name) for name in stand_ins}
    aliases = [name for name in ("float", "int") if name not in vars(np)]
    try:
        sys.modules.update(stand_ins)
        for name in aliases:
            setattr(np, name, {"float": float, "int": int}[name])
        with contextlib.redirect_stdout(io.StringIO()):
            module = importlib.import_module("pybullet_envs.bullet.kuka_diverse_object_gym_env")
            environment = module.KukaDiverseObjectEnv(renders=False, isDiscrete=False)
        if environment.cid != 0:
            raise ConfigError("the reference works only as the first Bullet client of a process; start a new process")
        yield environment
    except ImportError as error:
        raise ConfigError(
            f"the reference {REFERENCE} cannot be loaded: {error}; is pybullet installed whole?"
        ) from error
    finally:
        for name, module_before in kept.items():
            if module_before is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module_before
        for name in aliases:
            delattr(np, name)
