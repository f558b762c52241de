"""Two evaluations of the same scenes, against each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from qtopt.apps.describe import tell
from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.loops.compare import Paired, pair
from qtopt.loops.report import Report, read_report


@dataclass(frozen=True)
class Config:
    """Is A better than B? Two reports of qtopt eval on the same scenes, pair by pair, with the exact McNemar test.

    Attributes:
        a: JSON that qtopt eval wrote for one policy.
        b: JSON that it wrote for the other, with the same seed, objects and episodes.
        json: write one JSON object to this file; - writes it to the standard output, and nothing else.
    """

    __pydantic_config__ = STRICT

    a: Annotated[Path, tyro.conf.Positional]
    b: Annotated[Path, tyro.conf.Positional]
    json: Path | None = None


def main(config: Config) -> int:
    """Compares and tells."""
    a, b = _read(config.a), _read(config.b)
    paired = pair(a, b)
    told = {"a": str(config.a), "b": str(config.b), **{name: a[name] for name in ("objects", "seed")}}
    tell({**told, **paired.to_json()}, config.json, lambda: _describe(paired, config))
    return 0


def _read(path: Path) -> Report:
    try:
        report = read_report(path)
        if not isinstance(report.get("rows"), list):
            raise ValueError("no list of rows")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path}: found {error}, expected a report with a row for each episode; give the file that qtopt eval "
            "says it has written"
        ) from error
    return report


def _describe(paired: Paired, config: Config) -> str:
    low, high = paired.interval()
    p = paired.p_value()
    verdict = "they differ" if p < 0.05 else "no difference was shown"
    if (p < 0.05) != (low > 0.0 or high < 0.0):
        verdict += " (the interval is an approximation, the test is not: it is what counts)"
    void = f"\nleft out, a fault ended one of them: {paired.void}" if paired.void else ""
    return (
        f"A {config.a}\nB {config.b}\nof {paired.pairs} scenes: both {paired.both}, only A {paired.only_a}, "
        f"only B {paired.only_b}, neither {paired.neither}\n"
        f"A - B: {100 * paired.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], 95 % interval\n"
        f"exact McNemar test: p = {p:.4g}; at the 5 % level {verdict}{void}"
    )
