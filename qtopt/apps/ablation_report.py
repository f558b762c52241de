"""The files an ablation leaves: JSON for programs, a table for people."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qtopt.apps.rundir import provenance
from qtopt.apps.variants import Variant
from qtopt.loops.evaluate import success_of
from qtopt.loops.metrics import Proportion
from qtopt.types import JsonValue

Rows = Mapping[tuple[int, int], dict[str, JsonValue]]
"""Evaluated episodes by (training seed, number of the episode): the same key is the same scene for every variant."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more often a variant succeeded than the baseline, on the scenes that both were judged on.

    Attributes:
        mean: difference of the rates, in [-1, 1].
        low: lower end of its 95 % interval.
        high: upper end.
        scenes: pairs of episodes.
    """

    mean: float
    low: float
    high: float
    scenes: int

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def difference(variant: Rows, baseline: Rows, z: float = 1.959964) -> Difference | None:
    """Returns the paired difference with its normal interval; None without a pair of judged episodes.

    With b scenes that only the variant and c that only the baseline solved, of n, the difference is (b - c) / n and its
    standard error sqrt(b + c - (b - c)^2 / n) / n (McNemar's pairs).
    """
    pairs = [(_judged(variant[key]), _judged(baseline[key])) for key in variant if key in baseline]
    signs = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    if not signs:
        return None
    n, total = len(signs), sum(signs)
    half = z * math.sqrt(sum(map(abs, signs)) - total * total / n) / n
    return Difference(total / n, max(-1.0, total / n - half), min(1.0, total / n + half), n)


def _judged(row: dict[str, JsonValue]) -> int | None:
    success = success_of([row])
    return success.successes if success.trials else None


def write(
    directory: Path,
    facts: Mapping[str, JsonValue],
    variants: Sequence[Variant],
    results: Mapping[str, Rows],
) -> None:
    """Writes ``ablation.json`` and ``README.md``.

    Args:
        directory: where to.
        facts: what all variants share: store, steps, episodes, seeds.
        variants: in the order of the table, the baseline first.
        results: by name; a variant that is not finished is missing, and its row says so.
    """
    baseline = results.get(variants[0].name)
    table: list[JsonValue] = []
    lines = ["| variant | what differs | success | 95 % | to the baseline, points | the literature |", "|" + "---|" * 6]
    for variant in variants:
        rows = results.get(variant.name)
        success = None if rows is None else success_of(rows.values())
        is_baseline = variant is variants[0]
        apart = None if rows is None or baseline is None or is_baseline else difference(rows, baseline)
        table.append(_entry(variant, success, apart))
        lines.append(_line(variant, success, apart))
    ablation = {**facts, "variants": table, "provenance": dict(provenance())}
    _replace(directory / "ablation.json", json.dumps(ablation, indent=1) + "\n")
    _replace(directory / "README.md", _page(facts, lines))


def _entry(variant: Variant, success: Proportion | None, apart: Difference | None) -> JsonValue:
    entry: dict[str, JsonValue] = {
        "name": variant.name,
        "reason": variant.reason,
        "overrides": variant.overrides,
        "paper": variant.paper,
        "paper_remembered_not_verified": variant.remembered,
    }
    if success is not None and success.trials:
        entry |= {"episodes": success.trials, "successes": success.successes, "success": round(success.rate, 4)}
        entry["wilson_95"] = [round(success.low, 4), round(success.high, 4)]
    if apart is not None:
        interval: list[JsonValue] = [round(apart.low, 4), round(apart.high, 4)]
        entry |= {"difference": round(apart.mean, 4), "difference_95": interval, "scenes": apart.scenes}
    return entry


def _line(variant: Variant, success: Proportion | None, apart: Difference | None) -> str:
    paper = variant.paper + (", as remembered, not verified" if variant.remembered else "")
    if success is None or not success.trials:
        rate, interval = "not finished", ""
    else:
        rate, interval = f"{100 * success.rate:.1f} %", f"[{100 * success.low:.1f}, {100 * success.high:.1f}]"
    cells = (f"`{variant.name}`", variant.reason, rate, interval, "" if apart is None else str(apart), paper)
    return "| " + " | ".join(cells) + " |"


def _page(facts: Mapping[str, JsonValue], lines: Sequence[str]) -> str:
    shared = "\n".join(f"* {name.replace('_', ' ')}: {value}" for name, value in facts.items())
    table = "\n".join(lines)
    return f"""# Ablation

{shared}

{table}

Success is that of the greedy policy on objects never trained on; every variant is tried on the same scenes. Intervals
are 95 %: Wilson's for a rate, that of McNemar's pairs for a difference. They tell the chance of the scenes, not that of
training: for that, give more seeds. The literature's figures come from other arms, objects and numbers of grasps; only
their direction compares.
"""


def _replace(path: Path, text: str) -> None:
    writing = path.with_name(f".{path.name}.writing")
    writing.write_text(text)
    writing.replace(path)
