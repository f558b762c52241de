"""The real processes, started as a user starts them: from the camera to a gradient to a new policy on the collector.

One run is watched, disturbed, stopped and taken up again; each test goes on where the one before it ended.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest
import yaml

from qtopt.apps.process import LOG_VARIABLE
from qtopt.apps.rundir import RunDirectory
from qtopt.errors import RemoteError
from qtopt.replay import EpisodeStore
from qtopt.rpc import ClientConfig, connect
from robot_bridge.spool import episode_files
from tests.deploy.metric_names import used_names
from tests.ports import free_port

pytestmark = pytest.mark.timeout(300)

SMALL = [
    "--learner.batch=16",
    "--label.batch-size=32",
    "--replay.min-transitions=20",
    "--replay.limiter.min-size=32",
    "--train.publish-every-s=2",
    "--evaluation.episodes=2",
    "--evaluation.final-episodes=4",
]
PATIENCE_S = 90.0


def start(*words):
    """Starts ``qtopt run``, whose logs name every episode; the process and the lines that it says."""
    command = [sys.executable, "-m", "qtopt.cli", "run", *words]
    env = {**os.environ, LOG_VARIABLE: "debug"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def children_of(process):
    return psutil.Process(process.pid).children(recursive=True)


def wait_for(what, seconds=PATIENCE_S):
    """Returns what ``what`` returns as soon as it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(RemoteError, KeyError):
            found = what()
            if found:
                return found
        time.sleep(0.3)
    return pytest.fail(f"waited {seconds} s for {what.__name__}")


def server_of(directory):
    file = directory.roles / "collector-0.yaml"
    wait_for(file.exists)
    return yaml.safe_load(file.read_text())["server"]["address"]


def figures(connection):
    return {role: report.figures for role, report in connection.monitor.figures().items()}


def kept_by(directory, role):
    """Returns the UUIDs of the episodes that a collector's log says it has kept."""
    lines = (directory.logs / f"{role}.log").read_text().splitlines()
    said = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return {line["episode"] for line in said if line["event"] == "episode kept"}


def scraped(ports):
    """Returns the names of all metrics on these ports."""
    names = set()
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        names |= {line.partition(" ")[0].partition("{")[0] for line in lines if not line.startswith("#")}
    return names


def end(process, number, within_s):
    """Sends a signal; returns exit code and output. Fails if any process outlives it."""
    alive = children_of(process)
    assert alive
    began = time.monotonic()
    process.send_signal(number)
    out, _ = process.communicate(timeout=within_s + 5)
    _, orphans = psutil.wait_procs(alive, max(0.1, within_s - (time.monotonic() - began)))
    for orphan in orphans:
        orphan.kill()
    assert orphans == []
    assert time.monotonic() - began < within_s
    return process.returncode, out


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def directory(output):
    """The run's directory, once the first test has started it."""
    found = list((output / "kuka").iterdir())
    assert len(found) == 1
    return RunDirectory(found[0])


def test_from_camera_to_policy_through_the_death_of_the_server(output):
    port = free_port(5)
    words = [f"--metrics.port={port}", "--evaluation.every-s=5"]
    process = start("--minutes=10", f"--output={output}", *words, *SMALL)
    try:
        directory = RunDirectory(wait_for(lambda: next((output / "kuka").glob("*"), None)))
        server = server_of(directory)
        with connect(ClientConfig(server, connect_timeout_s=60.0, call_timeout_s=2.0, attempts=1)) as connection:

            def the_collector_has_a_policy_that_was_trained():
                seen = figures(connection)
                return seen["trainer"]["step"] > 0 and seen["collector/sim-0"]["policy_version"] >= 2

            wait_for(the_collector_has_a_policy_that_was_trained)
            stats = wait_for(connection.replay.stats)
            assert stats["episodes"] > 0
            assert stats["labels"] > 0
            victim = next(child for child in children_of(process) if "serve" in child.cmdline())
            step = wait_for(lambda: figures(connection)["trainer"]["step"])
            victim.kill()

            def everybody_is_back():
                seen = figures(connection)
                new = seen["trainer"]["step"] > step and seen["collector/sim-0"]["spooled"] == 0
                return new and connection.replay.stats()["episodes"] > stats["episodes"]

            wait_for(everybody_is_back)
            wait_for(lambda: list(directory.evaluations.glob("learned-*.json")))

            def everything_is_exported_that_dashboards_and_alerts_ask_for():
                with contextlib.suppress(OSError):  # the server's port may still be closed
                    return used_names() <= scraped(range(port, port + 5))
                return False

            wait_for(everything_is_exported_that_dashboards_and_alerts_ask_for, 30.0)
        code, out = end(process, signal.SIGINT, within_s=10.0)
    finally:
        process.kill()
    assert code == 130
    assert f"--resume {directory.root}" in out
    with EpisodeStore(directory.store, read_only=True) as store:
        episodes = [episode.uuid for episode in store.episodes()]
        assert store.verify().sound
        versions = {episode.policy_version for episode in store.episodes()}
    assert min(versions) <= 1 < max(versions)  # a collector that starts late has the networks of the start at once
    assert len(episodes) == len(set(episodes))
    # every episode that the collector kept is in the store, or, where the end came first, still on its disk; it may
    # have been killed before it said so of the last
    kept = kept_by(directory, "collector-0")
    there = {*episodes, *(file.stem.partition("_")[2] for file in episode_files(directory.spool / "sim-0"))}
    assert kept <= there
    assert len(there - kept) <= 1


def test_a_run_goes_on_and_dies_with_its_supervisor(directory):
    before = json.loads((directory.checkpoints / "last" / "learner.json").read_text())["step"]
    versions = {path.name for path in directory.models.glob("v*")}
    old_server = server_of(directory)
    process = start(f"--resume={directory.root}", "--evaluation.every-s=0")
    try:
        wait_for(lambda: json.loads(directory.state.read_text())["sessions"] == 2)
        wait_for(lambda: server_of(directory) != old_server)  # its file is written after the count of sessions
        with connect(ClientConfig(server_of(directory), connect_timeout_s=60.0)) as connection:
            wait_for(lambda: figures(connection)["trainer"]["step"] > before)
            seen = figures(connection)
            assert seen["trainer"]["published_version"] > max(int(name[1:9]) for name in versions)
            wait_for(lambda: "collector/sim-0" in figures(connection))
            stored = connection.replay.stats()["episodes"]
            next(child for child in children_of(process) if "collect" in child.cmdline()).kill()
            wait_for(lambda: connection.replay.stats()["episodes"] > stored + 2)
        end(process, signal.SIGKILL, within_s=10.0)
    finally:
        process.kill()
    saved = json.loads((directory.checkpoints / "last" / "learner.json").read_text())["step"]
    assert saved > before


def test_a_run_ends_with_an_evaluation_of_both_policies(directory):
    minutes = json.loads(directory.state.read_text())["minutes"]
    process = start(f"--resume={directory.root}", f"--minutes={minutes + 0.25}", "--evaluation.every-s=0")
    out, _ = process.communicate(timeout=150)
    assert process.returncode == 0, out
    assert "learned / scripted" in out
    final = json.loads((directory.evaluations / "final.json").read_text())
    for policy in ("scripted", "learned"):
        assert final[policy]["episodes"] == 4
        assert len(json.loads((directory.evaluations / f"final-{policy}.json").read_text())["rows"]) == 4
    assert {"ratio", "intervals_disjoint"} <= final.keys()
    assert directory.curve.read_bytes().startswith(b"\x89PNG")
    assert list(directory.filmstrips.glob("*.png"))
    assert list(directory.tensorboard.iterdir())
    rows = [row for row in directory.read_metrics() if "trainer/step" in row]
    steps = [row["trainer/step"] for row in rows]
    assert steps == sorted(steps)
    collected = [row["collector/sim-0/episodes"] for row in rows if "collector/sim-0/episodes" in row]
    assert collected == sorted(collected)
