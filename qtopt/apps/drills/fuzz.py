"""Fuzzing: millions of damaged messages and files for everything that takes bytes from strangers.

Each input is a seed, changed at the level of bytes or of a message's fields, with its digest made anew where a sender
would have made it. In this process the code that takes it apart is called directly; a share goes to a real server over
gRPC. Only this project's own errors may come of it: anything else is a fault, and its input is kept.
"""

import logging
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import structlog
import tyro

from qtopt.apps.drills.every_target import every_target
from qtopt.apps.drills.live import fuzz_server
from qtopt.apps.drills.mutate import pick
from qtopt.apps.drills.report import DrillConfig, finish
from qtopt.apps.drills.targets import Target
from qtopt.apps.process import say, set_up_logs
from qtopt.errors import QtOptError
from qtopt.types import JsonValue

_HANG_S = 1.0
_TELL_EVERY_S = 60.0
_WARM_SHARE = 0.1


@dataclass(frozen=True)
class Config(DrillConfig):
    """Damages messages and files by the million.

    Attributes:
        inputs: damaged inputs taken apart in this process.
        live: further ones, sent to a real server.
        minutes: ends after this time even if there are fewer [min]; 0 for no limit.
        faults: directory that keeps what caused a fault.
        room: directory on a fast disk for the files; made anew.
    """

    inputs: int = 10_000_000
    live: int = 50_000
    minutes: float = 0.0
    faults: Path = Path("outputs/fuzz")
    room: Path | None = None


@dataclass
class Tally:
    """What came of the inputs so far.

    Attributes:
        inputs, refused: by target.
        faults: by target and kind: the first traceback and how often.
        slowest_s: processor time of the slowest input, by target [s].
    """

    inputs: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    traces: dict[str, str] = field(default_factory=dict)
    slowest_s: dict[str, float] = field(default_factory=dict)


def main(config: Config) -> int:
    """Runs until all inputs were taken or the time is up; returns 1 after a fault, a hang or growth."""
    set_up_logs("fuzz", sys.stderr)
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    warnings.simplefilter("ignore")  # of libraries about what is damaged
    started = time.monotonic()
    until_s = started + 60 * config.minutes if config.minutes else float("inf")
    with tempfile.TemporaryDirectory(dir=config.room) as room:
        chance = np.random.default_rng(config.seed)
        targets = every_target(chance, Path(room))
        tally, memory = take_all(targets, config, until_s)
        live, breaches = fuzz_server(targets, config.live, config.seed, Path(room))
    breaches += [f"fault: {name} ({count} times): {tally.traces[name]}" for name, count in tally.faults.items()]
    breaches += [f"hang: {name}: {s:.1f} s" for name, s in tally.slowest_s.items() if s > _HANG_S]
    if tally.inputs and not tally.refused:
        breaches.append(f"none of {tally.inputs.total()} inputs was refused: nothing was damaged")
    growth_mb = memory[-1] - memory[0]
    if growth_mb > 64:
        breaches.append(f"growth: {growth_mb:.0f} MB")
    figures: dict[str, JsonValue] = {
        "inputs": tally.inputs.total(),
        "inputs_per_s": round(tally.inputs.total() / max(1e-9, time.monotonic() - started), 1),
        "refused": tally.refused.total(),
        "crashes": len(tally.faults),
        "hangs": sum(s > _HANG_S for s in tally.slowest_s.values()),
        "slowest_input_cpu_s": round(max(tally.slowest_s.values(), default=0.0), 3),
        "rss_growth_mb": round(growth_mb, 1),
        "live": live,
        "by_target": {
            name: {"inputs": count, "refused": tally.refused[name], "slowest_cpu_s": round(tally.slowest_s[name], 4)}
            for name, count in tally.inputs.items()
        },
    }
    return finish("fuzz", figures, breaches, seed=config.seed, started=started, to=config.json)


def take_all(targets: list[Target], config: Config, until_s: float) -> tuple[Tally, list[float]]:
    """Feeds the targets; returns the tally and the memory in use after a warm-up and at the end [MB]."""
    rng, tally = random.Random(config.seed), Tally()
    weights = [target.weight for target in targets]
    warm = max(1, round(_WARM_SHARE * min(config.inputs, 1_000_000)))
    process, memory = psutil.Process(), [0.0, 0.0]
    told_s = time.monotonic()
    for number in range(config.inputs):
        if number == warm:
            memory[0] = process.memory_info().rss / 1e6
        if number % 256 == 0:
            now_s = time.monotonic()
            if now_s > until_s:
                break
            if now_s > told_s + _TELL_EVERY_S:
                told_s = now_s
                say(f"{number} inputs, {len(tally.faults)} kinds of faults")
        target = targets[number] if number < len(targets) else targets[pick(rng, weights)]
        take_one(target, target.damage(rng, rng.choice(target.seeds)), tally, config.faults)
    memory[1] = process.memory_info().rss / 1e6
    memory[0] = memory[0] or memory[1]
    return tally, memory


def take_one(target: Target, data: bytes, tally: Tally, faults: Path) -> None:
    """Feeds one input and counts what came of it."""
    begun_s = time.process_time()
    try:
        target.take(data)
    except QtOptError:
        tally.refused[target.name] += 1
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        name = f"{target.name}: {type(error).__name__} at {Path(where.filename).name}:{where.name}"
        if name not in tally.faults:
            tally.traces[name] = "".join(traceback.format_exception(error, limit=-4))[-1500:]
            keep(faults, target.name, data)
            say(f"{name}: {error}"[:400])
        tally.faults[name] += 1
    took_s = time.process_time() - begun_s
    tally.inputs[target.name] += 1
    if took_s > tally.slowest_s.get(target.name, 0.0):
        tally.slowest_s[target.name] = took_s
        if took_s > _HANG_S:
            keep(faults, target.name, data)


def keep(faults: Path, name: str, data: bytes) -> None:
    """Writes an input that caused a fault to the directory ``faults``, under the name of its target."""
    faults.mkdir(parents=True, exist_ok=True)
    stem = "".join(letter if letter.isalnum() else "-" for letter in name)
    (faults / f"{stem}.{sha256(data).hexdigest()[:12]}.bin").write_bytes(data)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
