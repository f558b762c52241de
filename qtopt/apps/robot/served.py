"""The server's policy on a robot: an unreachable server costs an episode, never the collector."""

import logging

import numpy as np

from qtopt.errors import RemoteError
from qtopt.interfaces import Policy
from qtopt.specs import make_action
from qtopt.types import Behaviour, Decision, Observation

_log = logging.getLogger(__name__)


class ServedPolicy:
    """Satisfies ``qtopt.interfaces.Policy``.

    An episode that cannot begin with the server is the script's; one that loses the server on its way is ended there,
    by the policy's own action, rather than by acting on an old picture.

    Args:
        remote: the policy service's client.
        scripted: acts where the server does not answer at an episode's beginning.
    """

    def __init__(self, remote: Policy, scripted: Policy) -> None:
        self._remote, self._scripted = remote, scripted
        self._acting = remote

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Begins with the server, or with the script where nobody answers."""
        self._acting = self._remote
        try:
            self._remote.begin_episode(rng)
        except RemoteError as error:
            _log.warning("this episode is the script's: %s", error)
            self._acting = self._scripted
            self._scripted.begin_episode(rng)

    def select(self, observation: Observation) -> Decision:
        """Returns the action to take; the end of the episode where the server is gone."""
        try:
            return self._acting.select(observation)
        except RemoteError as error:
            _log.warning("the episode is ended: %s", error)
            return Decision(make_action(terminate=True), Behaviour.SCRIPTED)
