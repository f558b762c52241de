"""Server processes with a token, and clients that are closed again."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from robot_bridge.drivers.http_arm import HttpArm
from robot_bridge.remote import LinkOptions

TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen
    port: int
    token_file: Path
    scheme: str = "http"
    ca_file: Path | None = None

    def options(self, **changes):
        values = {"url": f"{self.scheme}://127.0.0.1:{self.port}", "token_file": self.token_file, "link_timeout_s": 2.0}
        return LinkOptions(**{**values, "ca_file": self.ca_file, **changes})

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def write_token(folder):
    """Returns the path of a new file with the token."""
    path = folder / "token"
    path.write_text(TOKEN + "\n")
    return path


def start_server(token_file, **options):
    """Starts a server; whoever calls kills it."""
    settings = {"port": 0, "token_file": str(token_file), "watchdog_s": 1.0, **options}
    command = [sys.executable, "-m", "tests.robot_bridge.remote.serve", json.dumps(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    scheme = "https" if "cert_file" in options else "http"
    return Served(process, int(process.stdout.readline()), token_file, scheme)


@pytest.fixture
def token_file(tmp_path):
    return write_token(tmp_path)


@pytest.fixture
def serve(token_file):
    """Starts servers; kills them all at the end."""
    started = []

    def start(**options):
        started.append(start_server(token_file, **options))
        return started[-1]

    yield start
    for served in started:
        served.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server for the tests of a module that leave it whole; each brings the arm to where it begins."""
    served = start_server(write_token(tmp_path_factory.mktemp("shared")))
    yield served
    served.kill()


@pytest.fixture
def connect():
    """Connects arms; closes them all at the end."""
    arms = []

    def make(served, **changes):
        arm = HttpArm(served.options(**changes))
        arms.append(arm)
        arm.connect(10.0)
        return arm

    yield make
    for arm in arms:
        arm.close()
