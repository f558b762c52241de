"""The dashboard of a controller that takes its time, and who asks it."""

import contextlib
import socket
import threading
import time

import pytest

from qtopt.errors import NotReady, RobotError
from robot_bridge.drivers.dashboard import PORT, Dashboard
from robot_bridge.drivers.ur import DRIVER

HOST = "127.0.5.6"
LATE_S = 0.7
"""More than what a driver that is connected waits for an answer."""


@pytest.fixture
def slow():
    """Greets and answers late, all of a connection's requests alike; ends with the one connection that it takes."""

    def serve():
        with contextlib.suppress(OSError), listener.accept()[0] as connection, connection.makefile("rb") as lines:
            time.sleep(LATE_S)
            connection.sendall(b"Connected: Universal Robots Dashboard Server\n")
            for _ in lines:
                time.sleep(LATE_S)
                connection.sendall(b"false\n")

    with socket.create_server((HOST, PORT)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield thread
    thread.join(10.0)


def test_greeting_and_answer_have_the_time_that_is_given(slow):
    with contextlib.closing(Dashboard(HOST, timeout_s=0.1)) as dashboard:
        dashboard.connect(10.0)
        assert dashboard.ask("running", 10.0) == "false"
        with pytest.raises(RobotError, match="no answer"):
            dashboard.ask("running")


def test_a_greeting_that_does_not_come_in_time_is_an_error(slow):
    with contextlib.closing(Dashboard(HOST)) as dashboard, pytest.raises(RobotError, match="check the address"):
        dashboard.connect(0.2)


def test_an_arm_waits_for_its_dashboard_until_the_deadline_and_leaves_it_when_it_is_not_ready(slow):
    with pytest.raises(NotReady, match="local control"):
        DRIVER.open(DRIVER.options(host=HOST)).connect(10.0)
    slow.join(10.0)
    assert not slow.is_alive(), "the connection is closed"
