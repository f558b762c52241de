"""Measurements: one JSON line each, our figure and the reference's, taken in the same run."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from qtopt.apps.benches.measure import Line, Settings
from qtopt.apps.hardware import hardware
from qtopt.apps.process import limit_threads, say
from qtopt.apps.rundir import provenance
from qtopt.config import STRICT
from qtopt.errors import ConfigError, ProcessFailed

_MODULES = {
    "sim": "simulation",
    "cem": "search",
    "onnx": "exported",
    "peak": "peak",
    "sample": "sampling",
    "ingest": "ingest",
    "train": "training",
    "scale": "scale",
}


@dataclass(frozen=True)
class Config:
    """Measures one thing, or all of them, and writes lines of JSON: name, ours, reference, ratio, unit, what both were.

    Attributes:
        name: what to measure; ``all`` measures everything, each in a process of its own.
        seconds: how long each side is measured [s]; 0 takes what the measurement needs for a stable figure.
        threads: threads of torch, and of what is measured with threads.
        seed: of all chance.
        json: file that the lines are written to as well, with the command, the commit and the machine.
    """

    __pydantic_config__ = STRICT

    name: Annotated[
        Literal["all", "sim", "cem", "onnx", "peak", "sample", "ingest", "train", "scale"], tyro.conf.Positional
    ]
    seconds: float = 0.0
    threads: int = 1
    seed: int = 0
    json: Path | None = None

    def __post_init__(self) -> None:
        if self.seconds < 0 or self.threads < 1:
            raise ConfigError(
                f"seconds is {self.seconds} and threads {self.threads}, expected at least 0 and at least 1"
            )


_SECONDS = {"sim": 120.0}
_SECONDS_ELSE = 10.0


def main(config: Config) -> int:
    """Measures and writes the lines."""
    lines = [found for name in _MODULES for found in _apart(name, config)] if config.name == "all" else _measure(config)
    if config.json is not None:
        facts = provenance()
        whole = {
            "command": facts["command"],
            "commit": facts["commit"],
            "hardware": hardware(),
            "threads": config.threads,
            "seed": config.seed,
            "figures": lines,
        }
        config.json.parent.mkdir(parents=True, exist_ok=True)
        config.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


def _measure(config: Config) -> list[Line]:
    limit_threads(config.threads)
    seconds = config.seconds or _SECONDS.get(config.name, _SECONDS_ELSE)
    module = importlib.import_module(f"qtopt.apps.benches.{_MODULES[config.name]}")
    measured: Iterable[Line] = module.measure(Settings(seconds, config.threads, config.seed))
    lines = []
    for found in measured:
        say(json.dumps(found))
        lines.append(found)
    return lines


def _apart(name: str, config: Config) -> list[Line]:
    """Measures in a new process: one measurement's memory, threads and Bullet clients are not the next one's."""
    flags = ["--seconds", str(config.seconds), "--threads", str(config.threads), "--seed", str(config.seed)]
    done = subprocess.run(
        [sys.executable, "-m", "qtopt.cli", "bench", name, *flags], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise ProcessFailed(f"qtopt bench {name} ended with code {done.returncode}, expected 0; its words are above")
    say(done.stdout.rstrip("\n"))
    return [json.loads(found) for found in done.stdout.splitlines()]
