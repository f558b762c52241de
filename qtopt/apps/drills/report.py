"""How a drill ends: one line of JSON, the same in a file if wished, and an exit code that says what came of it."""

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qtopt.apps.hardware import hardware
from qtopt.apps.process import say
from qtopt.apps.rundir import provenance
from qtopt.config import STRICT
from qtopt.types import JsonValue


@dataclass(frozen=True)
class DrillConfig:
    """What every drill is given.

    Attributes:
        seed: of all chance.
        json: file that the result is written to as well.
    """

    __pydantic_config__ = STRICT

    seed: int = 0
    json: Path | None = None


def finish(
    name: str, figures: Mapping[str, JsonValue], breaches: Sequence[str], *, seed: int, started: float, to: Path | None
) -> int:
    """Prints the result; returns the exit code: 0, or 1 after a breach.

    Args:
        name: of the drill.
        figures: what was measured.
        breaches: what must not happen and did, in words; the first ten are told.
        seed: of all chance.
        started: ``time.monotonic()`` at the beginning [s].
        to: file that the result is written to as well, with the machine and the commit; None for none.
    """
    found: dict[str, JsonValue] = {
        "drill": name,
        "breaches": len(breaches),
        **figures,
        "seed": seed,
        "elapsed_s": round(time.monotonic() - started, 1),
    }
    if breaches:
        found["first_breaches"] = list(breaches[:10])
    say(json.dumps(found))
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        command = shlex.join(["python", "-m", f"qtopt.apps.drills.{name}", *sys.argv[1:]])
        whole = {**found, "command": command, "commit": provenance()["commit"], "hardware": hardware()}
        to.write_text(json.dumps(whole, indent=1) + "\n")
    return 1 if breaches else 0
