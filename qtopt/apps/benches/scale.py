"""How collecting, labelling and training grow with 1, 2 and 4 of each on this machine; the reference is one."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.apps.benches.episodes import COMPACT_PX, make_episode
from qtopt.apps.benches.measure import Line, Settings, line
from qtopt.apps.benches.servers import label_all, process, serving
from qtopt.rpc import Connection

_COUNTS = (1, 2, 4)
_EPISODES = 200
_STARTING_S = 120.0


def measure(settings: Settings) -> Iterator[Line]:
    """Measures each count for ``seconds`` after all its processes have begun to deliver."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        root = Path(directory)
        collecting = (_processes("collect", count, root / f"collect-{count}", settings) for count in _COUNTS)
        yield from _lines("collectors", "scripted grasps/s", collecting)
        labelling = (_processes("label", count, root / f"label-{count}", settings) for count in _COUNTS)
        yield from _lines("updaters", "labels/s", labelling)
        yield from _lines("trainer threads", "gradient steps/s", _training(root / "train", settings))


def _lines(name: str, unit: str, found: Iterable[float]) -> Iterator[Line]:
    one = None
    for count, rate in zip(_COUNTS, found, strict=True):
        one = rate if one is None else one
        yield line(f"scale {name}", rate, one, unit, f"{name}: {count}", f"{name}: 1", count=count)


def _processes(command: str, count: int, root: Path, settings: Settings) -> float:
    """Returns what ``count`` processes deliver to one server per second."""
    root.mkdir()
    with serving(root, COMPACT_PX) as (connection, _), contextlib.ExitStack() as stack:
        if command == "label":
            rng = np.random.default_rng(settings.seed)
            for _ in range(_EPISODES):
                connection.replay.append(make_episode(rng))
            learner = Learner(LearnerConfig(), settings.seed)
            connection.model.publish(1, learner.snapshot())
        for number in range(count):
            flags = ["--server.address", connection.address, "--name", str(number), "--seed", str(number)]
            if command == "collect":
                flags += ["--spool", str(root / f"spool-{number}")]
            stack.enter_context(process(["qtopt.cli", command, *flags], root / f"{number}.log"))
        figure = "episodes_per_s" if command == "collect" else "labels_per_s"
        _wait_for(lambda: len(_delivering(connection, command, figure)) == count, root)
        counter = "episodes" if command == "collect" else "labels_put"
        before, started = float(connection.replay.stats()[counter]), time.perf_counter()
        time.sleep(settings.seconds)
        return (float(connection.replay.stats()[counter]) - before) / (time.perf_counter() - started)


def _delivering(connection: Connection, command: str, figure: str) -> list[str]:
    prefix = "collector/" if command == "collect" else "updater/"
    figures = connection.monitor.figures()
    return [role for role, own in figures.items() if role.startswith(prefix) and own.figures.get(figure, 0.0) > 0]


def _wait_for(ready: Callable[[], bool], root: Path) -> None:
    deadline = time.monotonic() + _STARTING_S
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all processes delivered within {_STARTING_S:g} s; their logs were in {root}")
        time.sleep(0.2)


def _training(root: Path, settings: Settings) -> list[float]:
    """Returns gradient steps per second on 1, 2 and 4 threads."""
    root.mkdir()
    config, rates = LearnerConfig(), []
    with serving(root, COMPACT_PX) as (connection, _):
        rng = np.random.default_rng(settings.seed)
        for _ in range(_EPISODES):
            connection.replay.append(make_episode(rng))
        label_all(connection, _EPISODES)
        batch = connection.replay.sample_labelled(config.batch, 10.0)
    learner = Learner(config, settings.seed)
    for count in _COUNTS:
        torch.set_num_threads(count)
        learner.update(batch)
        steps, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < settings.seconds:
            learner.update(batch)
            steps += 1
        rates.append(steps / elapsed)
    torch.set_num_threads(settings.threads)
    return rates
