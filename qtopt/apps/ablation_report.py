"""The files an ablation leaves: JSON for programs, a table for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from qtopt.apps.hardware import hardware
from qtopt.apps.rundir import command, provenance
from qtopt.apps.variants import Variant
from qtopt.durable import write_text
from qtopt.loops.compare import Paired, pair
from qtopt.loops.metrics import Proportion, wilson
from qtopt.loops.report import Report, success_of_report
from qtopt.types import JsonValue


def difference(variant: Sequence[Report], baseline: Sequence[Report]) -> Paired:
    """Pairs a variant's episodes with the baseline's, training seed by training seed and scene by scene."""
    pairs = [pair(mine, theirs) for mine, theirs in zip(variant, baseline, strict=True)]
    return Paired(*(sum(getattr(each, name.name) for each in pairs) for name in fields(Paired)))


def write(
    directory: Path,
    facts: Mapping[str, JsonValue],
    variants: Sequence[Variant],
    results: Mapping[str, Sequence[Report]],
    wall_s: Mapping[str, float],
) -> None:
    """Writes ``ablation.json``, with the baseline's success at its top, and ``README.md``.

    Args:
        directory: where to.
        facts: what all variants share: store, steps, episodes, seeds.
        variants: in the order of the table, the baseline first.
        results: one report for each training seed, by the variant's name; one that is not finished is missing, and its
            row says so.
        wall_s: time of training, all seeds together, by the variant's name [s].
    """
    baseline = results.get(variants[0].name)
    table: list[dict[str, JsonValue]] = []
    lines = ["| variant | what differs | success | 95 % | to the baseline, points | the literature |", "|" + "---|" * 6]
    for variant in variants:
        own = results.get(variant.name)
        success = None if own is None else _together([success_of_report(report) for report in own])
        is_baseline = variant is variants[0]
        apart = None if own is None or baseline is None or is_baseline else difference(own, baseline)
        table.append(_entry(variant, success, apart) | {"seeds": facts["seeds"], "wall_s": wall_s[variant.name]})
        lines.append(_line(variant, success, apart))
    trained = [report["provenance"] for own in results.values() for report in own]
    commits = sorted({str(each["commit"]) for each in trained if isinstance(each, dict)})
    ablation: dict[str, JsonValue] = {
        **facts,
        **{name: table[0][name] for name in ("final_success", "interval", "episodes") if name in table[0]},
        "wall_s": round(sum(wall_s.values()), 1),
        "command": command(),
        "commit": ", ".join(commits),
        "hardware": hardware(),
        "variants": [*table],
        "written_by": dict(provenance()),
    }
    write_text(directory / "ablation.json", json.dumps(ablation, indent=1) + "\n")
    write_text(directory / "README.md", _page(facts, lines))


def _entry(variant: Variant, success: Proportion | None, apart: Paired | None) -> dict[str, JsonValue]:
    entry: dict[str, JsonValue] = {
        "name": variant.name,
        "reason": variant.reason,
        "overrides": variant.overrides,
        "paper": variant.paper,
        "paper_remembered_not_verified": variant.remembered,
    }
    if success is not None and success.trials:
        entry |= {"episodes": success.trials, "successes": success.successes, "final_success": round(success.rate, 4)}
        entry["interval"] = [round(success.low, 4), round(success.high, 4)]
    if apart is not None:
        entry["to_baseline"] = apart.to_json()  # A is the variant, B the baseline
    return entry


def _together(parts: Sequence[Proportion]) -> Proportion:
    return wilson(sum(part.successes for part in parts), sum(part.trials for part in parts))


def _points(apart: Paired | None) -> str:
    if apart is None or not apart.pairs:
        return ""
    low, high = apart.interval()
    return f"{100 * apart.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _line(variant: Variant, success: Proportion | None, apart: Paired | None) -> str:
    paper = variant.paper + (", as remembered, not verified" if variant.remembered else "")
    if success is None or not success.trials:
        rate, interval = "not finished", ""
    else:
        rate, interval = f"{100 * success.rate:.1f} %", f"[{100 * success.low:.1f}, {100 * success.high:.1f}]"
    cells = (f"`{variant.name}`", variant.reason, rate, interval, _points(apart), paper)
    return "| " + " | ".join(cells) + " |"


def _page(facts: Mapping[str, JsonValue], lines: Sequence[str]) -> str:
    shared = "\n".join(f"* {name.replace('_', ' ')}: {value}" for name, value in facts.items())
    table = "\n".join(lines)
    return f"""# Ablation

{shared}

{table}

Success is that of the greedy policy on objects never trained on; every variant is tried on the same scenes. Intervals
are 95 %: Wilson's for rates, Wald's for paired differences (Agresti, Min 2005). They tell the chance of the scenes, not
that of training: for that, give more seeds. The literature's figures come from other arms, objects and numbers of
grasps; only their direction compares.
"""
