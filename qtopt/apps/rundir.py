"""The directory of one run: where everything lies, and what is needed to know later how it was made."""

import datetime
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from qtopt import __version__
from qtopt.config import to_plain
from qtopt.errors import CheckpointError

_PACKAGES = ("numpy", "torch", "grpcio", "protobuf", "zarr", "pybullet", "gymnasium", "opencv-python-headless")


class RunDirectory:
    """``outputs/<job>/<time>/`` and the places in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.metrics = root / "metrics.jsonl"
        self.tensorboard = root / "tensorboard"
        self.checkpoints = root / "checkpoints"
        self.evaluations = root / "eval"
        self.filmstrips = root / "eval" / "filmstrips"
        self.final = root / "eval" / "final.json"
        self.logs = root / "logs"
        self.roles = root / "roles"
        self.store = root / "store"
        self.models = root / "models"
        self.spool = root / "spool"
        self.curve = root / "curve.png"
        self.state = root / "run.json"

    @classmethod
    def create(cls, output: Path, job: str) -> "RunDirectory":
        """Makes the directory of a run that starts now."""
        stem = datetime.datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
        root = output / job / stem
        for number in range(2, 100):
            if not root.exists():
                break
            root = output / job / f"{stem}_{number}"
        directory = cls(root)
        directory.prepare()
        return directory

    @classmethod
    def existing(cls, root: Path) -> "RunDirectory":
        """Returns the directory of an earlier run; raises CheckpointError when it is none."""
        directory = cls(root)
        missing = [path.name for path in (directory.config, directory.store) if not path.exists()]
        if missing:
            found = f"no {' and no '.join(missing)} in it" if root.exists() else "nothing there"
            raise CheckpointError(
                f"{root}: found {found}, expected the directory of an earlier run, outputs/<job>/<time>; check the path"
            )
        directory.prepare()
        return directory

    def prepare(self) -> None:
        """Makes the folders that are not there yet."""
        for path in (
            self.tensorboard,
            self.checkpoints,
            self.filmstrips,
            self.logs,
            self.roles,
            self.store,
            self.spool,
        ):
            path.mkdir(parents=True, exist_ok=True)

    def write_config(self, config: Any) -> None:
        """Writes the resolved configuration, and what it ran on as comments above it."""
        facts = "".join(f"# {name}: {value}\n" for name, value in provenance().items())
        self.config.write_text(facts + yaml.safe_dump(to_plain(config), sort_keys=False))

    def facts(self) -> dict[str, str]:
        """Returns what the run's configuration says of how it was made, as ``provenance`` names it."""
        lines = self.config.read_text().splitlines() if self.config.exists() else []
        pairs = (line.removeprefix("# ").partition(": ") for line in lines if line.startswith("# "))
        return {name: value for name, _, value in pairs}

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl; a torn last line is left out."""
        rows = []
        for line in self.metrics.read_text().splitlines() if self.metrics.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows


def provenance() -> dict[str, str]:
    """Returns what identifies the code and the machine: versions, commit, processor."""
    facts = {"qtopt": __version__, "commit": _commit(), "command": command(), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts | {"system": platform.platform()}


def command() -> str:
    """Returns the words that started this process."""
    return shlex.join(["qtopt", *sys.argv[1:]])


def _commit() -> str:
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10).stdout

    try:
        return git("rev-parse", "HEAD").strip() + (" with changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown: not a git checkout"
