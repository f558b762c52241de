"""Policies that collect: a weak scripted one to start from nothing, then the learned one with noise and epsilon.

The scripted policy knows only the observation: it wanders while it descends, closes at the bottom, lifts a little and
terminates (QT-Opt, section 5: a weak scripted policy biased towards plausible grasps, 15 to 30 % success). It could run
on a real robot as it is.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.interfaces import Policy
from qtopt.specs import STEP_XY_M, STEP_YAW_RAD, STEP_Z_M, make_action
from qtopt.types import Behaviour, Decision, Observation


@dataclass(frozen=True)
class ScriptedConfig:
    """The script's habits.

    Attributes:
        grasp_height_m: finger tips above the floor when it closes, drawn between these.
        wander_m: standard deviation of each action's displacement along x and y while it descends.
        together: chance to close in the same action that reaches the bottom.
        lift: chance to lift before it terminates.
        retry: chance to open and try again instead of terminating.
        random_action: chance of a uniformly random action at any step.
    """

    __pydantic_config__ = STRICT

    grasp_height_m: tuple[float, float] = (0.005, 0.03)
    wander_m: float = 0.03
    together: float = 0.6
    lift: float = 0.9
    retry: float = 0.15
    random_action: float = 0.05

    def __post_init__(self) -> None:
        low, high = self.grasp_height_m
        if not 0.0 <= low <= high:
            raise ConfigError(f"script grasp_height_m is {self.grasp_height_m}, expected two rising heights from 0")
        if self.wander_m < 0:
            raise ConfigError(f"script wander_m is {self.wander_m}, expected 0 or more metres")
        for name in ("together", "lift", "retry", "random_action"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"script {name} is {getattr(self, name)}, expected a chance in [0, 1]")


@dataclass(frozen=True)
class ExplorationConfig:
    """How collectors choose among their policies.

    Attributes:
        scripted: the script.
        scripted_until_step: all episodes are scripted until the newest policy has had so many gradient steps.
        learned_from_step: gradient steps from which on the share of scripted episodes stays at its end; it falls
            linearly in between.
        scripted_share_end: share of scripted episodes in the end.
        greedy_share: share of learned episodes without any noise.
        epsilon: chance of a uniformly random action at each step of a noisy learned episode.
        noise_xy_m: standard deviation of the noise on x, y and z of a noisy learned episode [m].
        noise_yaw_rad: the same for the azimuth [rad].
    """

    __pydantic_config__ = STRICT

    scripted: ScriptedConfig = field(default_factory=ScriptedConfig)
    scripted_until_step: int = 2_000
    learned_from_step: int = 6_000
    scripted_share_end: float = 0.1
    greedy_share: float = 0.3
    epsilon: float = 0.08
    noise_xy_m: float = 0.01
    noise_yaw_rad: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.scripted_until_step <= self.learned_from_step:
            raise ConfigError(
                f"exploration scripted_until_step is {self.scripted_until_step} and learned_from_step "
                f"{self.learned_from_step}, expected two rising numbers of gradient steps"
            )
        for name in ("scripted_share_end", "greedy_share", "epsilon"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"exploration {name} is {getattr(self, name)}, expected a share in [0, 1]")
        if self.noise_xy_m < 0 or self.noise_yaw_rad < 0:
            raise ConfigError(
                f"exploration noise_xy_m is {self.noise_xy_m}, noise_yaw_rad {self.noise_yaw_rad}, expected 0 or more"
            )

    def scripted_share(self, step: int) -> float:
        """Returns the share of scripted episodes when the newest policy has seen ``step`` gradient steps."""
        if step >= self.learned_from_step:
            return self.scripted_share_end
        if step < self.scripted_until_step:
            return 1.0
        progress = (step - self.scripted_until_step) / (self.learned_from_step - self.scripted_until_step)
        return 1.0 + progress * (self.scripted_share_end - 1.0)

    def without_scripted_phase(self) -> "ExplorationConfig":
        """Returns the same for a policy that has learned before: its share is at its end from the first step on."""
        return replace(self, scripted_until_step=0, learned_from_step=0)


class ScriptedPolicy:
    """Descends at random, closes, terminates; implements ``interfaces.Policy``."""

    def __init__(self, config: ScriptedConfig | None = None) -> None:
        self._config = config if config is not None else ScriptedConfig()
        self._rng = np.random.default_rng(0)
        self._grasp_height_m = 0.0
        self._lifted = False

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Draws the coming attempt."""
        self._rng = rng
        self._draw_attempt()

    def select(self, observation: Observation) -> Decision:
        """Returns the script's next action."""
        if self._rng.random() < self._config.random_action:
            return Decision(random_action(self._rng, closed=observation.gripper_closed), Behaviour.RANDOM)
        return Decision(self._next(observation), Behaviour.SCRIPTED)

    def _draw_attempt(self) -> None:
        self._grasp_height_m = float(self._rng.uniform(*self._config.grasp_height_m))
        self._lifted = False

    def _next(self, observation: Observation) -> np.ndarray:
        config, rng = self._config, self._rng
        if observation.gripper_closed:
            if not self._lifted and rng.random() < config.lift:
                self._lifted = True
                return make_action((0.0, 0.0, float(rng.uniform(0.85, 1.0)) * STEP_Z_M))
            if rng.random() < config.retry:
                self._draw_attempt()
                return make_action((*self._wander(), float(rng.uniform(0.5, 1.0)) * STEP_Z_M), open_=True)
            return make_action(terminate=True)
        drop = observation.height_to_bottom - self._grasp_height_m
        if drop < 0.01:
            return make_action(close=True)
        reaches = drop <= STEP_Z_M
        down = -min(drop, STEP_Z_M)
        yaw = float(rng.uniform(-STEP_YAW_RAD, STEP_YAW_RAD))
        return make_action((*self._wander(), down), yaw, close=reaches and rng.random() < config.together)

    def _wander(self) -> tuple[float, float]:
        x, y = np.clip(self._rng.normal(0.0, self._config.wander_m, 2), -STEP_XY_M, STEP_XY_M)
        return float(x), float(y)


def random_action(rng: np.random.Generator, *, closed: bool) -> np.ndarray:
    """Returns a uniformly random displacement and rotation.

    It switches the gripper one time in four, terminates one in twenty.
    """
    draw = rng.random()
    low, high = (-STEP_XY_M, -STEP_XY_M, -STEP_Z_M), (STEP_XY_M, STEP_XY_M, STEP_Z_M)
    if draw < 0.05:
        return make_action(terminate=True)
    x, y, z = rng.uniform(low, high)
    switch = draw < 0.30
    yaw = float(rng.uniform(-STEP_YAW_RAD, STEP_YAW_RAD))
    return make_action((x, y, z), yaw, close=switch and not closed, open_=switch and closed)


class ExploringPolicy:
    """Draws for each episode who acts: the script, the learned policy, or the learned policy with noise and epsilon."""

    def __init__(self, scripted: Policy, learned: Policy | None, config: ExplorationConfig, step: int = 0) -> None:
        self._scripted = scripted
        self._learned = learned
        self._config = config
        self._step = step
        self._rng = np.random.default_rng(0)
        self._acting = scripted
        self._noisy = False

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Draws who acts in the coming episode."""
        self._rng = rng
        by_script = self._learned is None or rng.random() < self._config.scripted_share(self._step)
        self._acting = self._scripted if by_script or self._learned is None else self._learned
        self._noisy = not by_script and rng.random() >= self._config.greedy_share
        self._acting.begin_episode(rng)

    def select(self, observation: Observation) -> Decision:
        """Returns the acting policy's action, disturbed where the episode is a noisy one."""
        if self._noisy and self._rng.random() < self._config.epsilon:
            return Decision(random_action(self._rng, closed=observation.gripper_closed), Behaviour.RANDOM)
        decision = self._acting.select(observation)
        return self._disturb(decision) if self._noisy else decision

    def _disturb(self, decision: Decision) -> Decision:
        action = decision.action.copy()
        if action[7] > 0.5:
            return decision
        limits = np.array([STEP_XY_M, STEP_XY_M, STEP_Z_M])
        action[:3] = np.clip(action[:3] + self._rng.normal(0.0, self._config.noise_xy_m, 3), -limits, limits)
        yaw = np.arctan2(action[3], action[4]) + self._rng.normal(0.0, self._config.noise_yaw_rad)
        yaw = float(np.clip(yaw, -STEP_YAW_RAD, STEP_YAW_RAD))
        action[3], action[4] = np.sin(yaw), np.cos(yaw)
        return Decision(action, Behaviour.NOISE, decision.value)
