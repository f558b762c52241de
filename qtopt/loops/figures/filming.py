"""A cell with a spectator: the same episodes, and pictures of what happened between two of the policy's images."""

from dataclasses import dataclass
from typing import Protocol

from qtopt.interfaces import Environment, ResetResult, StepResult
from qtopt.loops.evaluate import Evaluated
from qtopt.types import FloatArray, Outcome, UInt8Array


@dataclass(frozen=True)
class Take:
    """A filmed episode of T actions.

    Attributes:
        evaluated: what happened.
        frames: pictures, RGB uint8 (H, W, 3): of the start, then those of each action; T + 1 groups, none empty.
    """

    evaluated: Evaluated
    frames: tuple[tuple[UInt8Array, ...], ...]


class Spectator(Protocol):
    """Looks at a cell without touching it."""

    def begin(self, seed: int) -> None:
        """Is told of an episode that started with ``seed``."""
        ...

    def picture(self) -> UInt8Array:
        """Returns what is to be seen now, RGB uint8 (H, W, 3)."""
        ...


class Filmed:
    """An ``interfaces.Environment`` around another; keeps the pictures of the episode under way.

    Usage::

        filmed = Filmed(cell.environment, Double(cell, config, camera), fps=12)
        cell.world.watcher = filmed.time_passes
        ran = run_episode(filmed, policy, ...)
        take = Take(evaluated, filmed.take())

    Args:
        environment: where the episodes run.
        spectator: takes the pictures.
        fps: pictures per second of the cell's time; 0 for one after each action.
    """

    def __init__(self, environment: Environment, spectator: Spectator, fps: float) -> None:
        self._environment, self._spectator, self._fps = environment, spectator, fps
        self._frames: list[list[UInt8Array]] = []
        self._acting, self._since_s = False, 0.0

    def start_episode(self, seed: int | None = None) -> ResetResult:
        """Starts an episode, which needs a seed; getting there is not filmed."""
        if seed is None:
            raise ValueError("found no seed, expected one: a filmed scene has to be set twice")
        first = self._environment.start_episode(seed)
        self._spectator.begin(seed)
        self._frames, self._since_s = [[self._spectator.picture()]], 0.0
        return first

    def act(self, action: FloatArray) -> StepResult:
        """Acts before the camera."""
        self._frames.append([])
        self._acting = True
        try:
            result = self._environment.act(action)
        finally:
            self._acting = False
        # a held object is taken out of the bin before act returns
        if result.outcome is not Outcome.SUCCESS or not self._frames[-1]:
            self._frames[-1].append(self._spectator.picture())
        return result

    def close(self) -> None:
        """Closes the environment."""
        self._environment.close()

    def time_passes(self, seconds: float) -> None:
        """Is told by the cell that ``seconds`` have passed, and takes a picture when one is due."""
        if not self._acting or not self._fps:
            return
        self._since_s += seconds
        if self._since_s * self._fps >= 1.0:
            self._since_s %= 1.0 / self._fps
            self._frames[-1].append(self._spectator.picture())

    def take(self) -> tuple[tuple[UInt8Array, ...], ...]:
        """Returns the pictures of the episode so far, in groups: the start, then each action's."""
        return tuple(tuple(group) for group in self._frames)
