"""A grasping environment for those who know Gymnasium: any cell as a ``gymnasium.Env``.

Actions are normalised, as Gymnasium advises: the first three numbers in [-1, 1] are shares of the largest displacement
of one action, then come sine and cosine of the change of azimuth, then close, open and terminate, each set above 0.5.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from qtopt.interfaces import Environment
from qtopt.specs import ACTION_SIZE, CLOSE, STEP_XY_M, STEP_Z_M, WORLD_VECTOR
from qtopt.types import FloatArray, Observation, Outcome, UInt8Array

_SCALE = np.array([STEP_XY_M, STEP_XY_M, STEP_Z_M], np.float32)
GymObservation = dict[str, Any]


class GymGraspEnv(gymnasium.Env[GymObservation, FloatArray]):
    """Wraps an ``Environment``.

    Observations: ``image`` uint8 (H, W, 3) RGB, ``gripper_closed`` 0 or 1, ``height_to_bottom`` float32 (1,) [m].
    ``info`` holds ``is_success``, ``tool_pose`` float32 (4,) [m, rad], ``executed_action`` float32 (8,) as in
    ``qtopt.specs.ACTION_SPEC``, ``outcome`` (its name, empty while the episode goes on) and after a reset ``metadata``.

    Args:
        environment: the cell.
        size_px: height and width of its images.
        render_mode: ``rgb_array`` lets ``render`` return the newest frame.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 (Gymnasium's own interface)

    def __init__(self, environment: Environment, size_px: int, render_mode: str | None = None) -> None:
        self._environment = environment
        self.render_mode = render_mode
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (size_px, size_px, 3), np.uint8),
                "gripper_closed": spaces.Discrete(2),
                "height_to_bottom": spaces.Box(-1.0, 10.0, (1,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._image = np.zeros((size_px, size_px, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[GymObservation, dict[str, Any]]:
        """Starts an episode; ``seed`` starts a new, repeatable sequence of bins."""
        super().reset(seed=seed, options=options)
        first = self._environment.start_episode(seed)
        info = {
            "is_success": False,
            "tool_pose": first.tool_pose,
            "executed_action": np.zeros(ACTION_SIZE, np.float32),
            "outcome": "",
            "metadata": dict(first.metadata),
        }
        return self._to_gym(first.observation), info

    def step(self, action: FloatArray) -> tuple[GymObservation, float, bool, bool, dict[str, Any]]:
        """Executes a normalised action."""
        physical = np.array(action, np.float32)
        physical[WORLD_VECTOR] *= _SCALE
        physical[CLOSE:] = physical[CLOSE:] > 0.5
        result = self._environment.act(physical)
        info = {
            "is_success": result.outcome is Outcome.SUCCESS,
            "tool_pose": result.tool_pose,
            "executed_action": result.executed,
            "outcome": result.outcome.name if result.outcome is not None else "",
        }
        return self._to_gym(result.observation), float(result.reward), result.terminated, result.truncated, info

    def render(self) -> UInt8Array | None:
        """Returns the newest frame, uint8 (H, W, 3), in mode ``rgb_array``."""
        return self._image if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Closes the cell."""
        self._environment.close()

    def _to_gym(self, observation: Observation) -> GymObservation:
        self._image = observation.image
        return {
            "image": observation.image,
            "gripper_closed": np.int64(observation.gripper_closed),
            "height_to_bottom": np.array([observation.height_to_bottom], np.float32),
        }
