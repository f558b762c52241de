"""The figures of a collector, whatever it collects on."""

import math
import time
from collections import Counter

from qtopt.loops.collect import Collected
from qtopt.loops.metrics import Clock, Rate, Recent
from qtopt.types import Behaviour, Outcome


class Figures:
    """Sums up the episodes collected.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._outcomes: Counter[Outcome] = Counter()
        self._version, self._version_since_s = -1, clock()
        self._episodes, self._recent = Rate(60.0, clock), Recent(200)
        self._by = {Behaviour.SCRIPTED: Recent(200), Behaviour.GREEDY: Recent(200), Behaviour.NOISE: Recent(200)}
        self._environment, self._policy, self._other = (Rate(60.0, clock) for _ in range(3))
        self._last: Collected | None = None
        self._steps = Recent(200)

    def add(self, turn: Collected) -> None:
        """Takes an episode."""
        self._last = turn
        self._outcomes[turn.episode.outcome] += 1
        if turn.policy_version != self._version:
            self._version, self._version_since_s = turn.policy_version, self._clock()
        self._episodes.add()
        success = float(turn.episode.success)
        self._recent.add(success)
        self._steps.add(len(turn.episode))
        kinds = set(turn.episode.behaviour.tolist())
        for kind, recent in self._by.items():
            if kind in kinds:
                recent.add(success)
        self._environment.add(turn.environment_s)
        self._policy.add(turn.policy_s)
        self._other.add(turn.other_s)

    def figures(self) -> dict[str, float]:
        """Returns the newest figures; shares are of the whole time, over the last minute."""
        parts = [self._environment.per_s(), self._policy.per_s(), self._other.per_s()]
        whole = max(1e-9, sum(parts))
        values = {
            "episodes": self._episodes.total,
            "episodes_per_s": self._episodes.per_s(),
            **{f"outcome_{outcome.name.lower()}": float(self._outcomes[outcome]) for outcome in Outcome},
            "success_recent": self._recent.mean(),
            "steps_per_grasp": self._steps.mean(),
            **{f"success_{kind.name.lower()}": recent.mean() for kind, recent in self._by.items()},
            "share_environment": parts[0] / whole,
            "share_policy": parts[1] / whole,
            "share_other": parts[2] / whole,
            "share_outside": (parts[1] + parts[2]) / whole,
        }
        if self._last is not None:
            values |= {"policy_version": float(self._version), "spooled": float(self._last.waiting)}
            values["set_aside"] = float(self._last.set_aside)
            values["policy_age_s"] = self._clock() - self._version_since_s
        return {name: value for name, value in values.items() if not math.isnan(value)}
