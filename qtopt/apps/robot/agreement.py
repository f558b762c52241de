"""Do the labels that a cell gave itself agree with what the simulator knows?

The truth of an episode: after its last action, and before the fingers were told to open, was there something between
them, off the floor, where the tool was highest? That is the clear pose, if the judge went there. The collector never
sees it; both sides meet here, over the time on the clock.
"""

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qtopt.apps.process import say
from qtopt.apps.robot import Agreement
from qtopt.errors import ConfigError
from qtopt.loops.metrics import wilson
from qtopt.replay.episode_store import EpisodeStore
from qtopt.types import Episode, Outcome

LIFTED_M: Final = 0.02
"""What touches the fingers is in the air where its lowest point is so high: what stands on the floor may be tall."""
_HIGH_M: Final = 0.08
"""A tool no higher than this is among objects, which may lie on others."""
_TOP_M: Final = 0.005
_KEYS: Final = ("z_m", "told_width_m", "touched_low_m")
_FLICKER: Final = 4
"""Contact comes and goes from one time step to the next; one of so many samples has to show it."""


@dataclass
class Truth:
    """What one cell's simulator recorded, in the order of time."""

    times_s: list[float] = field(default_factory=list)
    rows: list[Mapping[str, Any]] = field(default_factory=list)

    def held(self, from_s: float, to_s: float) -> bool | None:
        """Returns whether an object was in the air where the tool was highest, until the fingers were told to open.

        Between ``from_s`` and ``to_s``; None where nothing was recorded then.
        """
        first = max(0, bisect_left(self.times_s, from_s) - 1)
        rows: Sequence[Mapping[str, Any]] = self.rows[first : bisect_right(self.times_s, to_s) + 1]
        if not rows or self.times_s[first] > to_s or self.times_s[-1] < from_s:
            return None
        told = [row["told_width_m"] for row in rows]
        opened = next((n for n in range(1, len(rows)) if told[n] > told[n - 1] + 1e-4), len(rows))
        top_m = max(row["z_m"] for row in rows[:opened])
        at_top = [row["touched_low_m"] for row in rows[:opened] if row["z_m"] >= top_m - _TOP_M]
        lifted = any(low_m is not None and low_m >= LIFTED_M for low_m in at_top[-_FLICKER:])
        return lifted and top_m >= _HIGH_M


def main(config: Agreement) -> int:
    """Prints the line; returns 0, or 1 where an episode has no truth to it."""
    line = compare(config.store, config.truth)
    say(json.dumps(line))
    return 1 if line["no_truth"] else 0


def compare(stored: Path, records: Sequence[Path]) -> dict[str, Any]:
    """Returns how often the labels in a store agree with the truth, and which do not.

    Raises:
        ConfigError: a file is no record of the truth.
        StoreError: there is no store.
    """
    truths = read_truth(records)
    counts: Counter[str] = Counter()
    differ: list[str] = []
    with EpisodeStore(stored, read_only=True) as store:
        for episode in store.episodes():
            word = judge(episode, truths)
            counts[word] += 1
            counts[f"outcome_{episode.outcome.name.lower()}"] += 1
            if word.startswith("false_"):
                differ.append(f"{word} {episode.uuid}")
    agree, differing = counts["agree"], counts["false_success"] + counts["false_failure"]
    labelled = agree + differing
    share = wilson(agree, labelled)
    line: dict[str, Any] = {"episodes": labelled + counts["unknown"] + counts["aborted"] + counts["no_truth"]}
    line |= {key: counts[key] for key in ("agree", "false_success", "false_failure", "unknown", "aborted", "no_truth")}
    line["agreement"] = {"share": agree / max(1, labelled), "low": share.low, "high": share.high}
    line["unknown_share"] = counts["unknown"] / max(1, labelled + counts["unknown"])
    line["outcomes"] = {key[8:]: number for key, number in sorted(counts.items()) if key.startswith("outcome_")}
    line["differ"] = differ
    return line


def judge(episode: Episode, truths: Mapping[str, Truth]) -> str:
    """Returns ``agree``, ``false_success``, ``false_failure``, ``unknown``, ``aborted`` or ``no_truth``."""
    if not episode.trainable:
        return episode.outcome.name.lower()
    truth, facts = truths.get(str(episode.metadata.get("cell"))), episode.metadata
    began_s, judged_s = facts.get("last_action_s"), facts.get("judged_s")
    held = None
    if truth is not None and isinstance(began_s, float) and isinstance(judged_s, float):
        held = truth.held(began_s, judged_s)
    if held is None:
        return "no_truth"
    labelled = episode.outcome is Outcome.SUCCESS
    return "agree" if labelled is held else ("false_success" if labelled else "false_failure")


def read_truth(paths: Sequence[Path]) -> dict[str, Truth]:
    """Returns the records by the cells' names; raises ConfigError where a file is none."""
    truths: dict[str, Truth] = {}
    for path in paths:
        try:
            for line in path.read_text().splitlines():
                row = json.loads(line)
                truth = truths.setdefault(row["cell"], Truth())
                truth.times_s.append(row["time_s"])
                truth.rows.append({key: row[key] for key in _KEYS})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: no record of serve-sim --truth: {error!r}") from error
    return truths
