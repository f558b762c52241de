"""The commands over a physical cell, end to end, on a simulated one behind the UR protocol."""

import contextlib
import io
import json
import math
import sys
import time
from importlib.metadata import version
from itertools import pairwise

import cv2
import pytest

from qtopt.rpc import BackgroundServer, ServerConfig, Services
from qtopt.types import Outcome
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.places import STATE_VARIABLE
from robot_bridge.cell.processes import arms_of
from robot_bridge.cell_file import load_cell_file
from sim.faults.cells import SLOW_M_S, SimulatedCell, until
from tests.robot_bridge.cell.cells import bear_lateness, processes_of, wait_still
from tests.robot_bridge.drivers.ur_server import at_dashboard
from tests.rpc.stores import DictStore

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(300)]
EPISODES = 3


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    with SimulatedCell("ur", tmp_path_factory.mktemp("sim"), "127.0.92.1", speed_m_s=0.4) as sim:
        bear_lateness(sim.path)
        yield sim


@pytest.fixture(autouse=True)
def state(sim, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    yield
    assert until(lambda: not processes_of(sim.path), 30.0), "processes were left behind"


def test_check_finds_a_good_cell_good(qtopt, sim):
    before = sim.truth()["tool"]
    code, out, _ = qtopt("robot", "check", sim.path, "--json")
    found = json.loads(out)
    assert (code, found["code"]) == (0, 0), out
    seen = {row["name"]: row["seen"] for row in found["findings"]}
    assert {"mode", "stop path", "camera main", "clock", "installation"} <= seen.keys()
    assert f"ur-rtde {version('ur-rtde')}" in seen["drivers"]
    assert wait_still(sim)["tool"] == pytest.approx(before, abs=1e-4)


def test_check_names_what_is_wrong(qtopt, sim, tmp_path):
    text = sim.path.read_text()
    wrong = [
        (2, "wall_m", text.replace("wall_m", "wal_m")),
        (2, "no such policy", f'{text}\n[policy]\nsource = "onnx:{tmp_path / "no such policy"}"\n'),
        (3, "127.0.92.99", text.replace('host = "127.0.92.1"', 'host = "127.0.92.99"')),
        (2, "expected the arm's own", text.replace('"ur"\nhost = "127.0.92.1"', '"ur"\nhost = "127.0.92.99"')),
        (4, "payload is 1.00 kg, payload_kg is 2.00", text.replace("payload_kg = 1.0", "payload_kg = 2.0")),
        (
            4,
            "tool point is [0.000, 0.000, 0.174",
            text.replace("payload_kg", "tcp_offset_m = [0.0, 0.0, 0.2]\npayload_kg"),
        ),
        (4, "serial number 20245500001, expected 7", text.replace('driver = "ur"', 'driver = "ur"\nserial = "7"')),
        (5, "/nothing", text.replace("/stream", "/nothing")),
        (5, "mark the bin anew", text.replace("bin_region = [", "bin_region = [[999, 0], ")),
        (6, "calibrate CELL success", text.replace('"in simulation"', '""')),
    ]
    for expected, named, content in wrong:
        path = tmp_path / "cell.toml"
        path.write_text(content)
        code, out, _ = qtopt("robot", "check", path)
        failures = [line for line in out.splitlines() if line.startswith("FAIL")]
        assert code == expected, out
        assert any(named in line for line in failures), out


def test_check_writes_the_cameras_picture_with_the_bin_in_it(qtopt, sim, tmp_path):
    picture = tmp_path / "cell.png"
    code, out, _ = qtopt("robot", "check", sim.path, "--picture", picture)
    assert (code, f"written to {picture}" in out) == (0, True), out
    drawn = cv2.imread(str(picture))
    assert all((drawn[y, x] == (0, 255, 0)).all() for x, y in load_cell_file(sim.path).success.bin_region)
    assert drawn.std() > 5.0


def test_what_cannot_be_reached_is_no_reason_to_lock(qtopt, sim, tmp_path):
    text, path = sim.path.read_text(), tmp_path / "cell.toml"
    path.write_text(text.replace('-socket"\nhost = "127.0.92.1"', '-socket"\nhost = "127.0.92.1"\nport = 63399'))
    for _ in range(2):
        code, out, _ = qtopt("robot", "check", path)
        assert (code, "gripper at 127.0.92.1:63399" in out) == (3, True), out
    assert qtopt("robot", "check", sim.path)[0] == 0


@pytest.mark.parametrize(
    "waits",
    [
        "emergency_stop",
        pytest.param("safeguard", marks=pytest.mark.drill),
        pytest.param("local_control", marks=pytest.mark.drill),
        "brakes_shut",
    ],
)
def test_an_arm_that_waits_for_a_person_is_not_ready_rather_than_out_of_reach(qtopt, sim, waits):
    if waits == "local_control":
        sim.inject("remote_control", on=False)
    elif waits == "brakes_shut":
        at_dashboard(sim.host, "power off", "power on")
    else:
        sim.inject(waits)
    try:
        code, out, _ = qtopt("robot", "check", sim.path, "--json")
    finally:
        sim.inject("person")
    (arm,) = [row for row in json.loads(out)["findings"] if row["name"] == "arm, gripper"]
    assert (code, arm["code"]) == (4, 4), arm


@pytest.mark.parametrize(
    ("fault", "how", "named"),
    [
        ("in_use", {"names": ["input_int_register_0"]}, "registers are already in use"),
        pytest.param(
            "not_found", {"names": ["actual_TCP_force"]}, "actual_TCP_force: NOT_FOUND", marks=pytest.mark.drill
        ),
        pytest.param("old_rtde", {}, "its PolyScope is too old", marks=pytest.mark.drill),
    ],
)
def test_check_names_what_a_controller_does_not_give(qtopt, sim, fault, how, named):
    sim.inject(fault, **how)
    try:
        code, out, _ = qtopt("robot", "check", sim.path, "--json")
    finally:
        sim.inject(fault, names=[], on=False)
    (arm,) = [row for row in json.loads(out)["findings"] if row["name"] == "arm, gripper"]
    assert (code, arm["code"]) == (3, 3), arm
    assert named in arm["seen"], arm


def test_estop_and_status_say_where_they_looked(qtopt, sim, tmp_path):
    assert f"none noted in {tmp_path / 'state'}" in qtopt("robot", "status", sim.path)[1]
    assert f"no collector is noted in {tmp_path / 'state'}" in qtopt("robot", "estop", sim.path)[1]
    assert qtopt("robot", "ack", sim.path, "--operator", "a test", "--reason", "looked")[0] == 0
    assert f"as {tmp_path / 'state'} has it" in qtopt("robot", "ack", sim.path, "--operator", "a", "--reason", "b")[1]


def test_estop_stops_where_it_cannot_lock_and_says_so(qtopt, sim, tmp_path):
    (tmp_path / "state").write_text("no directory")
    code, out, _ = qtopt("robot", "estop", sim.path)
    assert (code, "NOT LOCKED" in out, "stands" in out) == (4, True, True), out
    code, out, _ = qtopt("robot", "check", sim.path)
    assert code == 2


def test_estop_ends_the_arms_process_whatever_became_of_the_cell_file(qtopt, sim, tmp_path):
    path = tmp_path / "cell.toml"
    path.write_text(sim.path.read_text())
    with contextlib.closing(PhysicalCell(path, 72)) as cell:
        for content in ("no = [toml", sim.path.read_text().replace("watchdog_hz = 1.0", "watchdog_hz = 0.0")):
            path.write_text(content)
            code, out, err = qtopt("robot", "estop", path)
            assert (code in (3, 4), "Press the button" in out) == (True, True), (code, out, err)
            assert until(lambda: cell.places.latched() is not None and not arms_of(path), 5.0)
        path.write_text(sim.path.read_text())
        assert until(lambda: "no report any more" in qtopt("robot", "status", path)[1], 5.0)
    path.write_text("no = [toml")
    assert qtopt("robot", "estop", path)[0] == 2  # nothing runs with it


def test_estop_locks_and_only_a_person_unlocks(qtopt, sim):
    code, out, _ = qtopt("robot", "estop", sim.path)
    assert (code, "stands" in out) == (0, True)
    assert "LOCKED by estop" in qtopt("robot", "status", sim.path)[1]
    assert qtopt("robot", "check", sim.path)[0] == 4
    code, _, err = qtopt("robot", "home", sim.path)
    assert (code, "locked by estop" in err) == (7, True)
    code, _, err = qtopt("robot", "ack", sim.path, "--operator", " ", "--reason", "x")
    assert (code, "name" in err) == (7, True)
    assert qtopt("robot", "ack", sim.path, "--operator", "a test", "--reason", "looked")[0] == 0
    assert qtopt("robot", "home", sim.path)[0] == 0
    assert wait_still(sim)["tool"][2] == pytest.approx(0.44, abs=0.005)


def test_ack_is_refused_while_the_cause_is_there(qtopt, sim):
    sim.inject(fault="emergency_stop", on=True)
    try:
        qtopt("robot", "estop", sim.path)
        code, _, err = qtopt("robot", "ack", sim.path, "--operator", "a test", "--reason", "did not look")
        assert (code, "emergency_stop" in err) == (7, True), err
    finally:
        sim.inject(fault="emergency_stop", on=False)
        at_dashboard(sim.host, "power on", "brake release")


@pytest.mark.drill
def test_the_cameras_latency_is_found_from_slow_swings(qtopt, sim):
    began_s = time.monotonic()
    code, out, err = qtopt("robot", "calibrate", sim.path, "latency", "--repeats", "10")
    assert code == 0, (err, out)
    found = float(out.rpartition("latency_s = ")[2])
    assert 0.01 < found < 0.35, out  # ten pictures a second of a scene that is told fifty times a second
    assert wait_still(sim)["tool"][2] == pytest.approx(0.44, abs=0.005)  # clear again, as after home
    trace = sim.trace(began_s)[::12]
    speeds = [math.dist(a[1:], b[1:]) / (b[0] - a[0]) for a, b in pairwise(trace)]
    assert 0.5 * SLOW_M_S < max(speeds) < 1.2 * SLOW_M_S


def test_the_box_is_read_where_the_tool_is_with_the_controllers_own_tool_point(qtopt, sim, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n\n"))
    code, _, err = qtopt("robot", "calibrate", sim.path, "box")
    assert (code, "was it led on" in err) == (2, True), err  # nobody led it to a second place
    place = [float(each) for each in err.partition(" before, at ")[2].partition(" m;")[0].split(",")]
    assert place == pytest.approx(sim.truth()["tool"][:3], abs=2e-3)
    path = tmp_path / "cell.toml"
    path.write_text(sim.path.read_text().replace("payload_kg = 1.0", "payload_kg = 2.0"))
    code, out, err = qtopt("robot", "calibrate", path, "box")
    assert (code, "payload is 1.00 kg" in err) == (2, True), (out, err)


def test_dry_run_needs_no_arm(qtopt, sim, tmp_path):
    code, out, _ = qtopt("robot", "collect", sim.path, "--dry-run")
    assert (code, "on paper" in out) == (0, True)
    path = tmp_path / "cell.toml"
    path.write_text(sim.path.read_text().replace("watchdog_hz = 1.0", "watchdog_hz = 0.0"))
    assert qtopt("robot", "collect", path, "--dry-run")[0] == 2


def test_collected_grasps_reach_the_server_once_each(qtopt, sim):
    store = DictStore()
    with BackgroundServer(ServerConfig(port=0), Services((72, 72), lambda: store)) as server:
        words = ("--server", server.address, "--episodes", EPISODES, "--policy", "scripted")
        code, _, err = qtopt("robot", "collect", sim.path, *words)
        assert code == 0, err
        assert len(store.episodes) == EPISODES
    for episode in store.episodes.values():
        assert episode.metadata["cell"] == "sim-ur-127-0-92-1"
        assert episode.outcome is not Outcome.ABORTED, episode.metadata
    wait_still(sim)
