"""The server's policy on a robot: an unreachable server costs an episode, never the collector."""

import logging
import time
from collections.abc import Callable

import numpy as np

from qtopt.errors import RemoteError
from qtopt.interfaces import Policy
from qtopt.specs import make_action
from qtopt.types import Behaviour, Decision, JsonValue, Observation

_log = logging.getLogger(__name__)


class ServedPolicy:
    """Satisfies ``qtopt.interfaces.Policy``.

    An episode that cannot begin with the server is the script's; one that loses the server on its way is ended there,
    by the policy's own action, rather than by acting on an old picture. An answer that comes too late is not acted on
    either: the arm then stands for one step, and looks again.

    Args:
        remote: the policy service's client.
        scripted: acts where the server does not answer at an episode's beginning.
        deadline_s: an answer after this is too late [s].
        clock: measures that [s].
    """

    def __init__(
        self, remote: Policy, scripted: Policy, deadline_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._remote, self._scripted = remote, scripted
        self._deadline_s, self._clock = deadline_s, clock
        self._acting = remote
        self._begun_s: float | None = None

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Begins with the server, or with the script where nobody answers; what was seen before grows old meanwhile."""
        self._acting, self._begun_s = self._remote, self._clock()
        try:
            self._remote.begin_episode(rng)
        except RemoteError as error:
            _log.warning("this episode is the script's: %s", error)
            self._acting = self._scripted
            self._scripted.begin_episode(rng)

    def select(self, observation: Observation) -> Decision:
        """Returns the action to take; the end of the episode where the server is gone."""
        asked_s = self._clock() if self._begun_s is None else self._begun_s
        self._begun_s = None
        try:
            decision = self._acting.select(observation)
        except RemoteError as error:
            _log.warning("the episode is ended: %s", error)
            return Decision(make_action(terminate=True), Behaviour.SCRIPTED)
        waited_s = self._clock() - asked_s
        if waited_s <= self._deadline_s:
            return decision
        _log.warning("an answer after %.2f s is not acted on, %.2f s are allowed", waited_s, self._deadline_s)
        facts: dict[str, JsonValue] = {"select_s": round(waited_s, 4), "late": True, "deadline_s": self._deadline_s}
        return Decision(make_action(), Behaviour.SCRIPTED, facts=facts)
