"""Measurements: one JSON line each, our figure and the reference's, taken in the same run."""

import importlib
import json
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from qtopt.apps.process import limit_threads, say
from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.types import JsonValue

_MODULES = {
    "sim": "sim.bench",
    "cem": "qtopt.apps.benches.search",
    "sample": "qtopt.apps.benches.sampling",
    "ingest": "qtopt.apps.benches.ingest",
    "train": "qtopt.apps.benches.training",
}


@dataclass(frozen=True)
class Config:
    """Measures one thing and writes one line of JSON: name, ours, reference, ratio, unit, and what both were.

    Attributes:
        name: what to measure.
        seconds: how long each side is measured [s].
        threads: threads of torch.
        seed: of all chance.
    """

    __pydantic_config__ = STRICT

    name: Annotated[Literal["sim", "cem", "sample", "ingest", "train"], tyro.conf.Positional]
    seconds: float = 10.0
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ConfigError(f"seconds is {self.seconds}, expected more than 0")


def main(config: Config) -> int:
    """Measures and writes the line."""
    limit_threads(config.threads)
    measure = importlib.import_module(_MODULES[config.name]).measure
    result: dict[str, JsonValue] = measure(config.seconds, config.seed)
    say(json.dumps(result))
    return 0
