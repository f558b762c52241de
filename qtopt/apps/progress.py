"""What a run has done so far: gathered from the roles, kept in metrics.jsonl, TensorBoard events and run.json."""

import datetime
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qtopt.apps.curve import draw
from qtopt.apps.events import EventWriter
from qtopt.apps.live import Display, Row, finite, gather
from qtopt.apps.rundir import RunDirectory
from qtopt.durable import write_text
from qtopt.errors import RemoteError
from qtopt.loops.metrics import Every, Proportion
from qtopt.loops.report import read_report, success_of_report
from qtopt.rpc.connection import Connection

_COUNTER = re.compile(r"collector/.+/episodes|updater/.+/labels")
_LOG_EVERY_S = 10.0


@dataclass(frozen=True)
class State:
    """What a run carries over to the next session: sessions begun, and minutes trained in all of them."""

    sessions: int = 0
    minutes: float = 0.0

    @classmethod
    def load(cls, path: Path) -> "State":
        """Returns the state kept in ``path``, or that of a run that never started."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def save(self, path: Path) -> None:
        """Writes the state, whole or not at all."""
        write_text(path, json.dumps(asdict(self)))


class Totals:
    """Counters that go on where they were when the process that counts is started again, or is not heard for a while.

    Args:
        rows: what earlier sessions kept, oldest first. A counter's last value counts, whichever row has it: the last
            row may be of a moment in which not every role had reported.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._base: dict[str, float] = {}
        self._last: dict[str, float] = {}
        for row in rows:
            self._base.update({key: value for key, value in row.items() if _COUNTER.fullmatch(key)})

    def apply_to(self, figures: dict[str, dict[str, float]]) -> None:
        """Replaces each role's counters by their totals over all restarts; adds those of roles that are not heard."""
        for role, values in figures.items():
            for name, value in values.items():
                if _COUNTER.fullmatch(key := f"{role}/{name}"):
                    if value < self._last.get(key, 0.0):
                        self._base[key] = self._base.get(key, 0.0) + self._last[key]
                    self._last[key] = value
        for key in self._base.keys() | self._last.keys():
            role, _, name = key.rpartition("/")
            figures.setdefault(role, {})[name] = self._base.get(key, 0.0) + self._last.get(key, 0.0)


class Progress:
    """Gathers, shows and keeps the figures of a run."""

    def __init__(self, directory: RunDirectory, display: Display, state: State, minutes: float) -> None:
        self._directory, self._display, self._of = directory, display, minutes
        self._state, self._started = state, time.monotonic()
        earlier = directory.read_metrics()
        self._totals = Totals(earlier)
        self._log, self._look = Every(_LOG_EVERY_S), Every(2.0, at_once=True)
        self._events = EventWriter(directory.tensorboard)
        self._seen = {path.name for path in directory.evaluations.glob("*.json")}
        self._success: dict[str, Proportion] = {}
        for row in earlier:
            if "evaluation" in row:
                self._success[row["evaluation"]["policy"]] = success_of_report(row["evaluation"])
        self._row: Row = {}
        self._waits = ""

    @property
    def minutes(self) -> float:
        """Minutes trained, earlier sessions included."""
        return self._state.minutes + (time.monotonic() - self._started) / 60

    @property
    def grasps(self) -> int:
        """Episodes that this run's collectors have finished, earlier sessions included."""
        return int(self._row.get("collector/episodes", 0.0))

    def turn(self, connection: Connection) -> None:
        """Asks the roles for their figures, shows them, and keeps them every ten seconds."""
        try:
            stats = connection.replay.stats()
            reports = connection.monitor.figures()
        except RemoteError:
            self._waits = "everybody waits for the server"
        else:
            self._waits = str(stats.get("limiter", ""))
            numbers = {name: value for name, value in stats.items() if isinstance(value, float)}
            figures = {role: dict(report.figures) for role, report in reports.items()}
            self._totals.apply_to(figures)
            self._row = gather(figures, numbers)
        if self._look.due():
            self._find_evaluations()
        self._display.update(self._row, self.minutes, self._of, self._success, self._waits)
        if self._log.due():
            self.keep()

    def keep(self) -> None:
        """Writes the newest figures to metrics.jsonl and TensorBoard, and the state."""
        if self._row:
            row = finite({"minutes": self.minutes, **self._row})
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            self._directory.append_metrics({"time": now, **row, "waits": self._waits})
            self._events.scalars(row, self._step())
        State(self._state.sessions, self.minutes).save(self._directory.state)

    def close(self) -> None:
        """Keeps the last figures."""
        self.keep()
        self._events.close()

    def _step(self) -> int:
        return int(self._row.get("trainer/step", 0.0))

    def _find_evaluations(self) -> None:
        for path in sorted(self._directory.evaluations.glob("*.json")):
            if path.name in self._seen:
                continue
            self._seen.add(path.name)
            report = read_report(path)
            brief: dict[str, Any] = {key: value for key, value in report.items() if key != "rows"}
            self._success[str(report["policy"])] = success_of_report(brief)
            self._directory.append_metrics({"minutes": round(self.minutes, 3), "evaluation": brief})
            if brief["success"] is not None:
                self._events.scalars({f"evaluation/{brief['policy']}": brief["success"]}, int(brief["step"]))


def draw_curve(directory: RunDirectory) -> None:
    """Draws the curve of a run from its metrics."""
    rows = directory.read_metrics()
    evaluations = [{"minutes": row["minutes"], **row["evaluation"]} for row in rows if "evaluation" in row]
    draw(
        [row for row in rows if "evaluation" not in row],
        evaluations,
        directory.curve,
        f"{directory.root.parent.name}/{directory.root.name}",
    )
