"""Fuzzing that looks where it gets: every target of ``fuzz`` under atheris, which counts the branches of our own code.

What reaches something new is kept and changed further, so that damage goes deeper than chance alone takes it. Each
target has a process of its own; a fault, an input of more than five seconds or 2 GB of memory ends it: a breach.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import tyro

from qtopt.apps.drills.every_target import every_target
from qtopt.apps.drills.report import DrillConfig, finish
from qtopt.apps.process import say
from qtopt.errors import ConfigError
from qtopt.types import JsonValue

_HANG_S: Final = 5
_MOST_MB: Final = 2048
_END_S: Final = 120.0
_PROGRESS: Final = re.compile(r"^#(?P<inputs>\d+)\s.*corp: (?P<kept>\d+)/.*rss: (?P<peak_mb>\d+)Mb", re.MULTILINE)
"""Lines of libFuzzer, the last of which stands there however a target's process ended."""


@dataclass(frozen=True)
class Config(DrillConfig):
    """Damages messages and files, guided by the code that they reach.

    Attributes:
        minutes: for all targets together [min].
        only: names of targets; none takes all.
        faults: directory that keeps what caused a fault.
        room: directory on a fast disk for files; made anew.
    """

    minutes: float = 120.0
    only: tuple[str, ...] = ()
    faults: Path = Path("outputs/fuzz")
    room: Path | None = None


def main(config: Config) -> int:
    """Gives each target its share of the time; returns 1 after a breach. Raises ConfigError."""
    if importlib.util.find_spec("atheris") is None:
        raise ConfigError("guided_fuzz needs atheris: pip install 'qtopt[fuzz]'")
    started = time.monotonic()
    config.faults.mkdir(parents=True, exist_ok=True)
    found: dict[str, JsonValue] = {}
    breaches: list[str] = []
    with tempfile.TemporaryDirectory(dir=config.room) as directory:
        room = Path(directory)
        (room / "names").mkdir()
        chance = np.random.default_rng(config.seed)
        names = [each.name for each in every_target(chance, room / "names")]
        unknown = sorted(set(config.only) - set(names))
        if unknown:
            raise ConfigError(f"only is {unknown}, expected some of {names}")
        chosen = [name for name in names if name in config.only] or names
        seconds = max(1, round(60 * config.minutes / len(chosen)))
        for number, name in enumerate(chosen):
            said, code = _run(name, room / str(number), config, seconds)
            lines = list(_PROGRESS.finditer(said))
            stats = {key: int(text) for key, text in lines[-1].groupdict().items()} if lines else {"inputs": 0}
            found[name] = dict(stats)
            say(f"{name}: {stats}")
            if not (code or stats["inputs"]):
                breaches.append(
                    f"{name}: no input was taken apart, or libFuzzer's report is not understood: {said[-1500:]}"
                )
            if code:
                breaches.append(f"{name} (exit code {code}): {said[-1500:]}")
                say(breaches[-1])
    inputs = sum(int(str(each["inputs"])) for each in found.values() if isinstance(each, dict))
    figures: dict[str, JsonValue] = {"inputs": inputs, "targets": len(found), "by_target": found}
    return finish("guided_fuzz", figures, breaches, seed=config.seed, started=started, to=config.json)


def _run(name: str, room: Path, config: Config, seconds: int) -> tuple[str, int]:
    """Returns what libFuzzer said of a target, and its exit code."""
    for part in ("files", "corpus"):
        (room / part).mkdir(parents=True)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={_HANG_S}",
        f"-rss_limit_mb={_MOST_MB}",
        f"-seed={config.seed + 1}",
        f"-artifact_prefix={config.faults}/",
    ]
    words = [name, str(room / "files"), str(room / "corpus"), str(config.faults), str(config.seed), *options]
    command = [sys.executable, "-m", "qtopt.apps.drills.guided_child", *words]
    try:
        ran = subprocess.run(command, capture_output=True, timeout=seconds + _END_S)
    except subprocess.TimeoutExpired as error:
        return f"{(error.stderr or b'').decode(errors='replace')}\nit did not end in time", -1
    return (ran.stdout + ran.stderr).decode(errors="replace"), ran.returncode


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
