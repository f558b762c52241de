"""Policies with a person in them; the arm stands still while they make up their mind."""

import numpy as np

from qtopt.errors import ConfigError
from qtopt.interfaces import Policy
from qtopt.types import Behaviour, Decision, Observation
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
    """

    def __init__(
        self, inner: Policy, device: Device, limits: MotionLimits | None = None, *, wait_s: float = 30.0
    ) -> None:
        self._inner, self._device = inner, device
        self._limits = limits if limits is not None else MotionLimits()
        self._wait_s = wait_s

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Begins the other policy's episode; forgets what was entered before."""
        self._device.read(0.0)
        self._inner.begin_episode(rng)

    def select(self, observation: Observation) -> Decision:
        """Returns the person's action, marked as an intervention, where they hold the controls, else the other's.

        The person is asked before and after the other policy chose, so that a slow choice never overrules them.

        Raises:
            RobotError: the device is gone: then nobody could take over.
        """
        if (mine := self._taken_over()) is not None:
            return mine
        decision = self._inner.select(observation)
        return self._taken_over() or decision

    def _taken_over(self) -> Decision | None:
        command = self._device.read(0.0)
        if not command.takeover:
            return None
        if command.holds:
            command = self._device.read(self._wait_s)
        if not command.takeover:  # let go while we waited
            return None
        return Decision(command.action(self._limits), Behaviour.HUMAN, is_intervention=True)
