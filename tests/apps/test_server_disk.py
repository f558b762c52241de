"""A real server whose store's disk fails, and a real collector: it goes on, and all it collected arrives once."""

import contextlib
import json
import sqlite3
import time

import pytest

from qtopt.apps.benches.servers import process, serving
from qtopt.rpc import ClientConfig
from qtopt.rpc.health import LOOK_EVERY_S, check_health
from tests.episodes import make_episode
from tests.ports import free_port
from tests.waiting import wait_until

IMAGE_PX = 72


@contextlib.contextmanager
def unmounted(store):
    """Takes the store's directory away, as a disk that is gone does: the system answers with an error."""
    aside = store.with_name("aside")
    store.rename(aside)
    yield
    aside.rename(store)


@contextlib.contextmanager
def unreadable_catalogue(store):
    """Takes a table from the catalogue, whose store then answers with an error that tells of no room."""

    def rename(old, new):
        with contextlib.closing(sqlite3.connect(store / "catalogue.db", timeout=20.0)) as catalogue:
            catalogue.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename("episode", "lost")
    yield
    rename("lost", "episode")


def health(connection):
    """Returns the name of the server's health."""
    (status,) = check_health(ClientConfig(connection.address), ("",), timeout_s=20.0).values()
    return status


def lines(log, event):
    """Returns the lines of a process's log that tell of an event."""
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
    return [line for line in found if line["event"] == event]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (unmounted, "No such file or directory"),
        pytest.param(unreadable_catalogue, "no such table", marks=pytest.mark.drill),
    ],
)
def test_a_collector_outlives_a_failing_disk_of_the_server(tmp_path, fault, said):
    spool, log = tmp_path / "spool", tmp_path / "collector.log"
    with serving(tmp_path, IMAGE_PX, free_port()) as (connection, _):

        def stored():
            return connection.replay.stats()["episodes"]

        words = [
            "collect",
            "--server",
            connection.address,
            "--spool",
            str(spool),
            "--sim.camera.size-px",
            str(IMAGE_PX),
        ]
        with process(["qtopt.cli", *words], log) as collector:
            wait_until(lambda: stored() > 0, 60.0)
            with fault(tmp_path / "store"):
                wait_until(lambda: len(lines(log, "episodes wait on the disk")) > 1)
                assert said in lines(log, "episodes wait on the disk")[-1]["error"]
                for _ in range(2):
                    wait_until(lambda: health(connection) == "NOT_SERVING")
                    time.sleep(2 * LOOK_EVERY_S)  # it has looked again
                waiting = len(list(spool.glob("*.safetensors")))
                wait_until(lambda: len(list(spool.glob("*.safetensors"))) > waiting + 1)  # it collects meanwhile
            before = stored()
            wait_until(lambda: lines(log, "the episodes that waited on the disk are delivered"))
            assert stored() > before + waiting
            wait_until(lambda: health(connection) == "SERVING")
            assert collector.is_running()
        (end,) = lines(log, "collector ended")
        assert end["waiting"] == 0
        assert stored() == end["episodes"]
    assert not (spool / "quarantine").exists()


def test_a_server_that_starts_again_says_what_it_found_and_how_long_it_took(tmp_path, rng):
    log = tmp_path / "server.log"
    with serving(tmp_path, IMAGE_PX, free_port()) as (connection, server):
        assert lines(log, "store opened")[0]["episodes"] == 0
        for _ in range(3):
            connection.replay.append(make_episode(rng, 4, size_px=IMAGE_PX))
        server.kill()
    with serving(tmp_path, IMAGE_PX, free_port()):
        _, again = lines(log, "store opened")
    assert (again["episodes"], again["landed_steps"], again["segments"], again["quarantined"]) == (3, 15, 0, 0)
    assert (again["level"], again["took_s"] < 30.0) == ("info", True)
