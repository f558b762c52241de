"""A cell that is left alone while everything goes wrong by chance: what it must not lose, and must not leave behind."""

import json
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from qtopt.apps.hardware import hardware
from qtopt.apps.process import end_on_sigterm, say
from qtopt.apps.robot import Soak
from qtopt.apps.robot.agreement import compare
from qtopt.apps.robot.soaked import CELL_ROLES, ROLES, Roles, delivered, finished, left_behind, unaccounted
from qtopt.apps.rundir import provenance
from qtopt.types import JsonValue
from robot_bridge.cell.places import STATE_VARIABLE, Places
from robot_bridge.cell_file import load_cell_file
from robot_bridge.contracts import Latch
from sim.faults.cells import SimulatedCell, until
from sim.faults.chance import draw, make

_LOOK_S: Final = 5.0
_MEMORY_GROWTH: Final = 1.10
_RIGHT_LABELS: Final = 0.98


def main(config: Soak) -> int:
    """Returns 1 where something was lost, left behind or grew."""
    end_on_sigterm()
    rng = random.Random(config.seed)
    troubles: Counter[str] = Counter()
    locks: list[Latch | None] = []
    samples: list[dict[str, JsonValue]] = []
    with tempfile.TemporaryDirectory() as directory:
        os.environ[STATE_VARIABLE] = str(Path(directory) / "cells")
        truth = Path(directory) / "truth.jsonl"
        options = ["--truth", str(truth), "--seed", str(config.seed)]
        with (
            SimulatedCell("ur", Path(directory), config.host, None, options=options) as sim,
            Roles(Path(directory), sim.path, config.seed) as roles,
        ):
            places = Places(load_cell_file(sim.path))
            began = time.monotonic()
            until(lambda: finished(roles.logs), 240.0, 1.0)
            while time.monotonic() - began < 60.0 * config.minutes:
                due = time.monotonic() + (config.every_s or _LOOK_S)
                if config.every_s:
                    trouble = draw(rng, troubles)
                    troubles[trouble.name] += 1
                    make(trouble, sim, roles.processes)
                    roles.revive()
                    locks.append(sim.unlock(places))
                samples.append({"minute": round((time.monotonic() - began) / 60, 2), **roles.sample(sim.process.pid)})
                say(f"{len(finished(roles.logs))} episodes, {sum(troubles.values())} faults: {json.dumps(samples[-1])}")
                time.sleep(max(0.0, due - time.monotonic()))
                locks.append(sim.unlock(places))
            waiting, aside = roles.end(), roles.set_aside()
            told, stored = finished(roles.logs), delivered(roles.store)
        left = aside + left_behind(directory, config.host)
        labels = compare(roles.store, [truth])
    right = labels["agreement"]["share"]
    wrong = [f"labels agree with the truth in {right:.1%}: {labels['differ']}"] if right < _RIGHT_LABELS else []
    result = _judge(told, stored, waiting, left + wrong, samples)
    result |= {
        "minutes": config.minutes,
        "seed": config.seed,
        "faults": dict(troubles),
        "locks": dict(Counter(each.rule for each in locks if each)),
        "reasons": [f"{each.rule}: {each.reason}" for each in locks if each],
        "labels": labels,
    }
    if config.output is not None:
        facts = {"commit": provenance()["commit"], "command": provenance()["command"], "hardware": hardware()}
        config.output.mkdir(parents=True, exist_ok=True)
        (config.output / "result.json").write_text(json.dumps({**facts, **result, "samples": samples}, indent=1) + "\n")
    say(json.dumps(result))
    return int(bool(result["troubles"]))


def _judge(
    told: list[str], stored: Counter[str], waiting: int, left: list[str], samples: list[dict[str, JsonValue]]
) -> dict[str, JsonValue]:
    """Returns the figures, and in ``troubles`` what was not as it must be."""
    troubles = unaccounted(told, stored, waiting) + left
    growth = {}
    third = len(samples) // 3
    for name in (f"{role}_{what}" for role in (*ROLES, *CELL_ROLES) for what in ("mib", "fds")):
        first, last = (
            _median([float(str(each[name])) for each in part if name in each])
            for part in (samples[third:-third], samples[-third:])
        )
        growth[name] = [first, last]
        if third and last > first * _MEMORY_GROWTH + 4:
            troubles.append(f"{name} grew from {first:.0f} to {last:.0f}")
    return {
        "episodes": len(told),
        "stored": sum(stored.values()),
        "growth_second_to_last_third": {name: list(values) for name, values in growth.items()},
        "troubles": list(troubles),
    }


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0
