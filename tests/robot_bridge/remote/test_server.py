"""The server refuses who has no token, what was sent before, and where it would be overheard."""

import contextlib
import http.client
import json
import signal
import socket
import time

import pytest

from qtopt.apps.certificates import host_name
from qtopt.apps.certs import Keys
from qtopt.errors import ConfigError, RobotError
from robot_bridge.drivers.http_arm import HttpArm
from robot_bridge.drivers.http_stop import HttpStopChannel
from robot_bridge.remote import ArmServer, LinkOptions, ServerOptions, server
from robot_bridge.remote.messages import MAX_DECEL_M_S2, write_pose
from robot_bridge.safety.limits import LIMIT_BOUNDS
from tests.robot_bridge.conftest import TOKEN
from tests.robot_bridge.remote.point_arm import START, PointArm

pytestmark = pytest.mark.realtime


def ask(served, method, path, message=None, token=TOKEN):
    """Returns status and answer of a bare request, independent of our client."""
    body = message if isinstance(message, bytes) else json.dumps(message or {})
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)) as connection:
        connection.request(method, path, body, {"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@contextlib.contextmanager
def connections(served, count):
    with contextlib.ExitStack() as opened:
        where = "127.0.0.1", served.port
        yield [opened.enter_context(socket.create_connection(where)) for _ in range(count)]


def test_what_is_refused(serve, token_file):
    served = serve(watchdog_s=5.0)
    for token in (None, "", TOKEN[:-1], TOKEN + "0", "é" * 32):
        assert ask(served, "GET", "/v1/state", token=token)[0] == 401
        assert ask(served, "POST", "/v1/stop", token=token)[0] == 401
    assert ask(served, "GET", "/v1/state")[0] == 200
    assert ask(served, "GET", "/v1/nothing")[0] == 404
    assert ask(served, "POST", "/v1/state")[0] == 404
    assert ask(served, "POST", "/v1/stop", b"x" * 20_000)[0] == 400
    assert ask(served, "POST", "/v1/stop", b'{"number": NaN}')[0] == 400

    session = ask(served, "POST", "/v1/session")[1]["session"]
    assert ask(served, "POST", "/v1/session")[0] == 409
    move = {"pose": write_pose(START), "speed_m_s": 0.1, "accel_m_s2": 0.5, "deadline_s": 5.0, "session": session}
    assert ask(served, "POST", "/v1/move", {**move, "number": 3})[0] == 200
    for number in (3, 2, 1):
        status, answer = ask(served, "POST", "/v1/move", {**move, "number": number})
        assert status == 409
        assert "replayed or out of order" in answer["error"]
    for bad in ({"number": -1}, {"number": 4.0}, {"number": 9, "speed_m_s": 0.51}, {"number": 9, "session": 1}):
        assert ask(served, "POST", "/v1/move", {**move, **bad})[0] == 400
    assert ask(served, "POST", "/v1/move", {**move, "number": 9, "session": "0" * 32})[0] == 409

    with pytest.raises(RobotError, match="another client holds the arm"):
        HttpArm(served.options()).connect(5.0)
    other = token_file.with_name("other")
    other.write_text("f" * 32)
    with pytest.raises(RobotError, match="401"):
        HttpArm(served.options(token_file=other)).connect(5.0)


def test_a_new_session_begins_without_the_results_of_the_one_before(serve):
    served = serve(watchdog_s=5.0)
    first = ask(served, "POST", "/v1/session")[1]["session"]
    move = {"pose": write_pose(START), "speed_m_s": 0.1, "accel_m_s2": 0.5, "deadline_s": 5.0, "number": 1}
    assert ask(served, "POST", "/v1/move", {**move, "session": first})[0] == 200
    while ask(served, "GET", "/v1/state")[1]["result"] is None:
        continue
    assert ask(served, "POST", "/v1/release", {"session": first})[0] == 200
    assert ask(served, "POST", "/v1/session")[0] == 200
    assert ask(served, "GET", "/v1/state")[1]["result"] is None, "its command 1 would seem to have ended"


def test_garbage_and_idle_connections_block_nobody(serve):
    served = serve()
    with connections(served, 8) as idle:
        idle[0].sendall(b"\x00\xff\x16\x03" * 100 + b"\r\n\r\n")
        idle[1].sendall(b"POST /v1/stop HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
        assert ask(served, "GET", "/v1/state")[0] == 200


def test_who_takes_too_long_over_a_request_makes_room_for_others(token_file, monkeypatch):
    monkeypatch.setattr(server, "STRANGER_S", 0.6)
    with (
        ArmServer(PointArm(), None, ServerOptions(port=0, token_file=token_file)) as served,
        connections(served, server.CONNECTION_LIMIT) as slow,
    ):
        for _ in range(8):  # a byte now and then, so that no single wait is too long
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(b"G")
            time.sleep(0.2)
        assert ask(served, "GET", "/v1/state")[0] == 200


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_idle_connections_of_strangers_keep_no_stop_out(serve, tmp_path, scheme):
    keys, own = Keys(tmp_path), tmp_path / "server"
    keys.make_authority()
    keys.make_server([host_name("127.0.0.1")], 1.0)
    tls = {"cert_file": str(own / "server.crt"), "key_file": str(own / "server.key")} if scheme == "https" else {}
    served = serve(**tls)
    with contextlib.ExitStack() as idle:
        for _ in range(2 * server.CONNECTION_LIMIT):
            idle.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        began_s = time.monotonic()
        channel = HttpStopChannel(served.options(ca_file=own / "ca.crt" if tls else None))
        idle.callback(channel.close)
        channel.connect(5.0)
        assert channel.stop()
        assert time.monotonic() - began_s < 1.0, "strangers must not be waited for"


def test_strangers_are_sent_away_soon_and_whoever_has_shown_the_token_is_not(token_file, monkeypatch):
    monkeypatch.setattr(server, "STRANGER_S", 0.6)
    with contextlib.ExitStack() as opened:
        served = opened.enter_context(ArmServer(PointArm(), None, ServerOptions(port=0, token_file=token_file)))
        known = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
        opened.callback(known.close)
        known.auto_open = 0
        known.connect()
        for strangers in (0, 2 * server.CONNECTION_LIMIT, 1):
            began_s = time.monotonic()
            for _ in range(strangers):
                one = opened.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=5))
            if strangers:
                assert one.recv(1) == b""
                assert 0.5 < time.monotonic() - began_s < 2.0
            known.request("GET", "/v1/state", headers={"Authorization": f"Bearer {TOKEN}"})
            assert known.getresponse().read()


def test_stops_are_bounded(token_file):
    arm, braked = PointArm(), []
    arm.stop = braked.append
    with ArmServer(arm, None, ServerOptions(port=0, token_file=token_file)) as served:
        for decel in (0.5, 10.0, 10.5, 1e3, 1e300):
            assert ask(served, "POST", "/v1/stop", {"decel_m_s2": decel})[0] == 200, "no stop is refused for its number"
        assert braked == [0.5, 10.0, 10.0, 10.0, 10.0]
    assert LIMIT_BOUNDS["stop_decel_m_s2"][1] == MAX_DECEL_M_S2
    for decel in (0.0, 10.5):
        with pytest.raises(ConfigError, match=r"expected 0\.01 to 10 m/s2"):
            ServerOptions(token_file=token_file, stop_decel_m_s2=decel)


def test_sigterm_stops_the_arm_and_ends_the_server(serve, connect):
    served = serve()
    connect(served)
    served.process.send_signal(signal.SIGTERM)
    assert json.loads(served.process.stdout.readline())["mode"] == "ready"
    assert served.process.wait(10) == 0


def test_tls(serve, connect, tmp_path):
    keys, own = Keys(tmp_path), tmp_path / "server"
    keys.make_authority()
    keys.make_server([host_name("127.0.0.1")], 1.0)
    served = serve(cert_file=str(own / "server.crt"), key_file=str(own / "server.key"))
    with pytest.raises(RobotError, match="SSLCertVerificationError"):
        HttpArm(served.options()).connect(5.0)
    served.ca_file = own / "ca.crt"
    arm = connect(served)
    assert arm.state().pose.position_m == START.position_m


def test_no_token_leaves_in_the_clear(token_file):
    with pytest.raises(ConfigError, match="without TLS"):
        ServerOptions(host="0.0.0.0", token_file=token_file)
    with pytest.raises(ConfigError, match="without TLS"):
        LinkOptions("http://192.168.1.7:8470")
    with pytest.raises(ConfigError, match="expected https"):
        LinkOptions("192.168.1.7:8470")
    with pytest.raises(ConfigError, match="token belongs into"):
        LinkOptions("https://me:secret@192.168.1.7:8470")


def test_a_token_is_needed(tmp_path, monkeypatch):
    monkeypatch.delenv("ROBOT_ARM_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="ROBOT_ARM_TOKEN holds 0 characters"):
        HttpArm(LinkOptions("http://127.0.0.1:1"))
    (tmp_path / "short").write_text("abc")
    with pytest.raises(ConfigError, match="expected one line of at least 24"):
        HttpArm(LinkOptions("http://127.0.0.1:1", tmp_path / "short"))
    monkeypatch.setenv("ROBOT_ARM_TOKEN", TOKEN)
    with pytest.raises(RobotError, match="is it running"):
        HttpArm(LinkOptions("http://127.0.0.1:1")).connect(1.0)
