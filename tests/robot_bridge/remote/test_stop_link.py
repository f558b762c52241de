"""A stop waits for no name, for no new connection, and for nothing that was asked before it."""

import socket
import threading
import time

import pytest

from qtopt.apps.certificates import host_name
from qtopt.apps.certs import Keys
from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode, Pose
from robot_bridge.drivers.http_arm import HttpArm
from robot_bridge.drivers.http_stop import HttpStopChannel
from robot_bridge.remote import ArmServer, Endpoint, LinkOptions, ServerOptions, server, stop_link
from robot_bridge.remote.messages import write_pose
from tests.robot_bridge.remote.point_arm import DOWN, PointArm
from tests.robot_bridge.remote.relay import Relay

pytestmark = pytest.mark.realtime
FAR = {
    "pose": write_pose(Pose((5.0, 0.0, 0.3), DOWN)),
    "speed_m_s": 0.05,
    "accel_m_s2": 0.5,
    "deadline_s": 60.0,
}


class Client:
    """Both ways to an arm."""

    def __init__(self, options):
        self.arm, self.channel = HttpArm(options), HttpStopChannel(options)
        self.arm.connect(10.0)
        self.channel.connect(10.0)

    def close(self):
        self.arm.close()
        self.channel.close()

    def assert_stops(self, way, watch):
        """Sets the arm off and stops it, over ``way``, within what a stop waits for its answer."""
        self.arm.command("/v1/move", FAR)
        wait_for(watch, ArmMode.MOVING)
        began_s = time.monotonic()
        if way == "arm":
            self.arm.stop(2.0)
        else:
            assert self.channel.stop()
        assert time.monotonic() - began_s < 0.3
        wait_for(watch, ArmMode.READY)
        assert time.monotonic() - began_s < 0.8


def wait_for(watch, mode):
    end_s = time.monotonic() + 5.0
    while watch.state().mode is not mode:
        assert time.monotonic() < end_s
        time.sleep(0.005)


@pytest.fixture
def client():
    """Opens clients; closes them all at the end."""
    opened = []

    def open_client(options):
        opened.append(Client(options))
        return opened[-1]

    yield open_client
    for one in opened:
        one.close()


@pytest.fixture
def plant():
    """An arm whose server lives in this process, drops what is idle for a second, and waits long for its client."""
    arm = PointArm()
    yield arm
    arm.close()


@pytest.fixture
def relay(plant, token_file, monkeypatch):
    monkeypatch.setattr(server, "IDLE_S", 1.0)
    monkeypatch.setattr(stop_link, "KEEP_S", 0.4)
    options = ServerOptions(port=0, token_file=token_file, watchdog_s=5.0)
    with ArmServer(plant, None, options) as served, Relay(served.port) as relay:
        yield relay


def options_of(relay, token_file):
    return LinkOptions(f"http://127.0.0.1:{relay.port}", token_file, link_timeout_s=2.0)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_stop_waits_for_no_name(serve, client, tmp_path, monkeypatch, scheme):
    keys, own = Keys(tmp_path), tmp_path / "server"
    keys.make_authority()
    keys.make_server([host_name("localhost")], 1.0)
    tls = {"cert_file": str(own / "server.crt"), "key_file": str(own / "server.key")} if scheme == "https" else {}
    served = serve(watchdog_s=5.0, **tls)
    with Relay(served.port) as relay:
        url, ca_file = f"{scheme}://localhost:{relay.port}", own / "ca.crt" if tls else None
        opened = client(served.options(url=url, ca_file=ca_file))
        look_up = socket.getaddrinfo

        def blocked(*asked, **how):
            time.sleep(5.0)
            return look_up(*asked, **how)

        monkeypatch.setattr(socket, "getaddrinfo", blocked)
        for way in ("arm", "channel"):
            relay.cut()
            opened.assert_stops(way, opened.channel)
        if not tls:
            assert all(f"\r\nHost: localhost:{relay.port}\r\n".encode() in heard for heard in relay.heard)
        opened.close()


def test_looking_up_a_name_ends_with_the_deadline(token_file, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(20.0) and [])
    began_s = time.monotonic()
    for way in (HttpArm, HttpStopChannel):
        with pytest.raises(RobotError, match="address of localhost was not found within"):
            way(LinkOptions("http://localhost:1", token_file)).connect(0.5)
    assert time.monotonic() - began_s < 3.0
    answer.set()


def test_what_is_left_of_a_deadline_is_told_in_round_numbers(token_file):
    stops = stop_link.StopLink(Endpoint(LinkOptions("http://127.0.0.1:1", token_file)))
    with pytest.raises(RobotError, match=r"within 0\.3 s \(ConnectionRefusedError"):
        stops.post("/v1/stop", {}, 0.3)


def test_connections_for_stops_are_open_before_and_stay_so(plant, relay, client, token_file):
    opened = client(options_of(relay, token_file))
    time.sleep(2.5)  # longer than the server keeps what is idle
    opened.arm.command("/v1/zero_wrench", {})
    relay.take_no_more()
    for way in ("arm", "channel"):
        opened.assert_stops(way, plant)


def test_connections_for_stops_that_broke_are_opened_anew_before_the_next_stop(plant, relay, client, token_file):
    opened = client(options_of(relay, token_file))
    relay.cut()
    time.sleep(1.5)
    opened.arm.command("/v1/zero_wrench", {})
    relay.take_no_more()
    for way in ("arm", "channel"):
        opened.assert_stops(way, plant)


def test_a_stop_does_not_wait_for_a_hold(plant, relay, client, token_file):
    opened = client(options_of(relay, token_file))
    holding = threading.Event()

    def brake_for_long():
        holding.set()
        time.sleep(1.0)

    plant.hold = brake_for_long
    refused = []

    def hold():
        try:
            opened.arm.hold()
        except RobotError as error:
            refused.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(5.0)
    began_s = time.monotonic()
    opened.arm.stop(2.0)
    assert time.monotonic() - began_s < 0.15
    thread.join()
    assert refused, "the hold was over before the stop"
