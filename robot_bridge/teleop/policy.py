"""Policies with a person in them; the arm stands still while they make up their mind."""

import time
from collections.abc import Callable

import numpy as np

from qtopt.errors import ConfigError
from qtopt.interfaces import Policy
from qtopt.specs import make_action
from qtopt.types import Behaviour, Decision, JsonValue, Observation
from robot_bridge.config import MotionLimits
from robot_bridge.teleop.device import Device


class TeleopPolicy:
    """The person alone, for demonstrations; satisfies ``qtopt.interfaces.Policy``.

    Args:
        device: what they steer with; whoever made it closes it.
        limits: of the cell.
        wait_s: how long a step waits for them [s]; then the arm holds for that step, which counts as one.
    """

    def __init__(self, device: Device, limits: MotionLimits | None = None, *, wait_s: float = 30.0) -> None:
        if not wait_s >= 0:
            raise ConfigError(f"wait_s is {wait_s}, expected 0 s or more")
        self._device, self._wait_s = device, wait_s
        self._limits = limits if limits is not None else MotionLimits()

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Forgets what was entered before the episode."""
        del rng
        self._device.read(0.0)

    def select(self, observation: Observation) -> Decision:
        """Returns the person's action; raises RobotError when the device is gone."""
        del observation
        return Decision(self._device.read(self._wait_s).action(self._limits), Behaviour.HUMAN)


class TakeoverPolicy:
    """Another policy, until the person takes over, and again after they let go.

    Args:
        inner: the other policy.
        device: what they steer with; whoever made it closes it.
        limits: of the cell.
        wait_s: how long a step waits for them while they hold the controls [s].
        deadline_s: what the other policy chose is too late after this [s], from the step's beginning.
        clock: measures that [s].
    """

    def __init__(
        self,
        inner: Policy,
        device: Device,
        limits: MotionLimits | None = None,
        *,
        wait_s: float = 30.0,
        deadline_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not wait_s >= 0 or not deadline_s > 0:
            raise ConfigError(
                f"wait_s is {wait_s} and deadline_s {deadline_s}, expected 0 s or more, and more than 0 s"
            )
        self._inner, self._device = inner, device
        self._limits = limits if limits is not None else MotionLimits()
        self._wait_s, self._deadline_s, self._clock = wait_s, deadline_s, clock

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Begins the other policy's episode; forgets what was entered before."""
        self._device.read(0.0)
        self._inner.begin_episode(rng)

    def select(self, observation: Observation) -> Decision:
        """Returns the person's action, marked as an intervention, where they hold the controls, else the other's.

        The person is asked before and after the other policy chose, so that a slow choice never overrules them. Where
        they let go after a wait, ``observation`` may be old: the arm then stands for one step, and looks again.

        Raises:
            RobotError: the device is gone: then nobody could take over.
        """
        asked_s = self._clock()
        mine, chosen = self._taken_over(), None
        if mine is None and self._clock() - asked_s <= self._deadline_s:
            chosen = self._inner.select(observation)
            mine = self._taken_over()
        if mine is not None:
            return mine
        waited_s = self._clock() - asked_s
        if chosen is not None and waited_s <= self._deadline_s:
            return chosen
        facts: dict[str, JsonValue] = {"select_s": round(waited_s, 4), "late": True, "deadline_s": self._deadline_s}
        return Decision(make_action(), Behaviour.SCRIPTED, facts=facts)

    def _taken_over(self) -> Decision | None:
        command = self._device.read(0.0)
        if not command.takeover:
            return None
        if command.holds:
            command = self._device.read(self._wait_s)
        if not command.takeover:  # let go while we waited
            return None
        return Decision(command.action(self._limits), Behaviour.HUMAN, is_intervention=True)
