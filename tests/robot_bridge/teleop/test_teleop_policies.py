"""Demonstrations and takeovers, run as episodes in a cell and stored."""

import numpy as np
import pytest

from qtopt.errors import RobotError
from qtopt.loops.episode import run_episode
from qtopt.replay import EpisodeStore, StoreFormat
from qtopt.specs import make_action
from qtopt.types import Behaviour, Decision, Observation
from robot_bridge.teleop import HOLD, Command, TakeoverPolicy, TeleopPolicy
from tests.robot_bridge.fake_cell import FakeCell

SEEN = Observation(np.zeros((16, 16, 3), np.uint8), gripper_closed=False, height_to_bottom=0.1)


class Script:
    """A device that says what it was given, in turn; one of the commands may be an error."""

    def __init__(self, *commands):
        self.commands, self.waits = list(commands), []

    def read(self, wait_s):
        self.waits.append(wait_s)
        command = self.commands.pop(0) if self.commands else HOLD
        if isinstance(command, Exception):
            raise command
        return command

    def close(self):
        pass


class Inner:
    """A policy that moves left by 1 cm."""

    def __init__(self):
        self.asked, self.episodes = 0, 0

    def begin_episode(self, rng):
        self.episodes += 1

    def select(self, observation):
        self.asked += 1
        return Decision(make_action((0.0, 0.01, 0.0)), Behaviour.GREEDY, 0.5, facts={"select_s": 0.1})


def run(policy, **more):
    return run_episode(
        FakeCell().environment(), policy, np.random.default_rng(0), stop=lambda: False, clock=lambda: 0.0, **more
    ).episode


def test_a_demonstration_is_the_persons_alone(tmp_path):
    device = Script(HOLD, Command(forward=0.5), Command(close=True), HOLD, Command(terminate=True))
    episode = run(TeleopPolicy(device, wait_s=3.0))
    assert episode.behaviour.tolist() == [Behaviour.HUMAN] * 4
    assert not episode.is_intervention.any()
    assert episode.actions[:, 5].tolist() == [0, 1, 0, 0]
    assert device.waits == [0.0, 3.0, 3.0, 3.0, 3.0]
    with EpisodeStore(tmp_path / "store", StoreFormat.for_images(16)) as store:
        store.append(episode)
        assert store.read_episode(0).behaviour.tolist() == episode.behaviour.tolist()


def test_steps_of_the_person_are_marked_in_the_store(tmp_path):
    forward = Command(forward=0.5, takeover=True)
    held = Command(takeover=True)
    device = Script(
        HOLD,  # begin
        *(HOLD, HOLD),  # step 0: the inner policy's
        forward,  # step 1: before the inner policy is asked
        *(HOLD, forward),  # step 2: while it chose
        *(held, held),  # step 3: held, and nothing asked for
        *(held, HOLD, HOLD),  # step 4: let go while waiting; the inner policy's
        Command(terminate=True, takeover=True),
    )
    inner = Inner()
    episode = run(TakeoverPolicy(inner, device, wait_s=2.0))
    assert episode.is_intervention.tolist() == [False, True, True, True, False, True]
    names = [Behaviour(value).name for value in episode.behaviour]
    assert names == ["GREEDY", "HUMAN", "HUMAN", "HUMAN", "GREEDY", "HUMAN"]
    assert np.array_equal(episode.actions[3], make_action())
    assert (inner.asked, inner.episodes) == (3, 1)
    assert episode.metadata["steps"] == {"0": {"select_s": 0.1}, "4": {"select_s": 0.1}}
    with EpisodeStore(tmp_path / "store", StoreFormat.for_images(16)) as store:
        store.append(episode)
        store.seal()
        assert store.read_episode(0).is_intervention.tolist() == episode.is_intervention.tolist()


def test_without_a_device_nobody_could_take_over_so_nothing_is_chosen():
    inner = Inner()
    policy = TakeoverPolicy(inner, Script(HOLD, RobotError("gone")))
    policy.begin_episode(np.random.default_rng(0))
    with pytest.raises(RobotError, match="gone"):
        policy.select(SEEN)
    assert inner.asked == 0


class Slow(Script):
    """A device whose person lets go after a wait of half a second, as a clock in its hand tells."""

    now_s = 0.0

    def read(self, wait_s):
        self.now_s += min(wait_s, 0.5)
        return super().read(wait_s)


HELD = Command(takeover=True)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("deadline_s", "late"), [(0.4, True), (0.6, False)])
def test_what_is_seen_before_a_long_wait_is_not_acted_on(before, deadline_s, late):
    """Whether the person waited before the inner policy chose, or while it did."""
    device = Slow(HOLD, HELD, HOLD) if before else Slow(HOLD, HOLD, HELD, HOLD)
    inner = Inner()
    policy = TakeoverPolicy(inner, device, wait_s=2.0, deadline_s=deadline_s, clock=lambda: device.now_s)
    policy.begin_episode(np.random.default_rng(0))
    decision = policy.select(SEEN)
    if late:
        assert np.array_equal(decision.action, make_action())
        assert (decision.behaviour, decision.is_intervention) == (Behaviour.SCRIPTED, False)
        assert decision.facts == {"select_s": 0.5, "late": True, "deadline_s": deadline_s}
        assert inner.asked == (0 if before else 1)
    else:
        assert decision.behaviour is Behaviour.GREEDY


def test_a_choice_of_the_inner_policy_that_comes_late_is_not_acted_on():
    inner = Inner()
    times = iter((0.0, 0.1, 1.2))
    decision = TakeoverPolicy(inner, Script(), clock=lambda: next(times)).select(SEEN)
    assert inner.asked == 1
    assert np.array_equal(decision.action, make_action())
    assert decision.facts["late"]
