"""The server's policy on a robot: what comes too late is not acted on."""

import numpy as np

from qtopt.apps.robot.served import ServedPolicy
from qtopt.errors import ServerUnavailable
from qtopt.specs import make_action
from qtopt.types import Behaviour, Decision, Observation

SEEN = Observation(np.zeros((8, 8, 3), np.uint8), False, 0.1)
MOVE = make_action((0.0, 0.0, -0.05))


class Server:
    """Answers, after ``takes_s`` on the clock, or not at all."""

    def __init__(self):
        self.now_s = self.takes_s = 0.0
        self.away = False

    def begin_episode(self, rng):
        self._answer()

    def select(self, observation):
        self._answer()
        return Decision(MOVE, Behaviour.GREEDY, 0.5)

    def _answer(self):
        self.now_s += self.takes_s
        if self.away:
            raise ServerUnavailable("nobody answers")


class Script(Server):
    def select(self, observation):
        return Decision(MOVE, Behaviour.SCRIPTED)


def test_an_answer_in_time_is_acted_on_and_a_late_one_is_a_step_of_standing(rng):
    server = Server()
    policy = ServedPolicy(server, Script(), 1.0, lambda: server.now_s)
    policy.begin_episode(rng)
    server.takes_s = 0.9
    assert policy.select(SEEN).behaviour is Behaviour.GREEDY
    server.takes_s = 1.1
    late = policy.select(SEEN)
    assert np.array_equal(late.action, make_action())
    assert late.facts["late"] is True
    server.takes_s = 0.1
    assert np.array_equal(policy.select(SEEN).action, MOVE)


def test_an_episode_begins_with_the_script_where_nobody_answers_and_ends_where_the_server_is_lost(rng):
    server = Server()
    policy = ServedPolicy(server, Script(), 1.0, lambda: server.now_s)
    server.away = True
    policy.begin_episode(rng)
    assert policy.select(SEEN).behaviour is Behaviour.SCRIPTED
    server.away = False
    policy.begin_episode(rng)
    server.away = True
    assert np.array_equal(policy.select(SEEN).action, make_action(terminate=True))


def test_what_was_seen_before_a_slow_beginning_is_not_acted_on(rng):
    server = Server()
    server.away, server.takes_s = True, 10.0
    policy = ServedPolicy(server, Script(), 1.0, lambda: server.now_s)
    policy.begin_episode(rng)
    late = policy.select(SEEN)
    assert np.array_equal(late.action, make_action())
    assert late.facts["late"] is True
    assert np.array_equal(policy.select(SEEN).action, MOVE)
