"""A real terminal (a pty): keys become steps, and the terminal is restored however the program ends."""

import os
import pty
import signal
import subprocess
import sys
import termios
import textwrap
import threading
import time
import tty

import numpy as np
import pytest

from qtopt.errors import RobotError
from robot_bridge.config import MotionLimits
from robot_bridge.teleop import HOLD, Keyboard


@pytest.fixture
def terminal():
    """Both ends of a pty: the person's and the program's."""
    person, program = pty.openpty()
    yield person, program
    for end in (person, program):
        os.close(end)


def press_soon(person, keys, delay_s=0.1):
    timer = threading.Timer(delay_s, lambda: os.write(person, keys))
    timer.start()
    return timer


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"w", [0.04, 0, 0, 0, 1, 0, 0, 0]),
        (b"s", [-0.04, 0, 0, 0, 1, 0, 0, 0]),
        (b"a", [0, 0.04, 0, 0, 1, 0, 0, 0]),
        (b"d", [0, -0.04, 0, 0, 1, 0, 0, 0]),
        (b"r", [0, 0, 0.05, 0, 1, 0, 0, 0]),
        (b"F", [0, 0, -0.0125, 0, 1, 0, 0, 0]),
        (b"q", [0, 0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4), 0, 0, 0]),
        (b"e", [0, 0, 0, -np.sin(np.pi / 4), np.cos(np.pi / 4), 0, 0, 0]),
        (b"c", [0, 0, 0, 0, 1, 1, 0, 0]),
        (b"o", [0, 0, 0, 0, 1, 0, 1, 0]),
        (b"\r", [0, 0, 0, 0, 1, 0, 0, 1]),
    ],
)
def test_a_key_is_a_step(terminal, key, expected):
    person, program = terminal
    with Keyboard(program) as keyboard:
        timer = press_soon(person, b"zx" + key)
        found = keyboard.read(20.0)
        timer.join()
        assert np.allclose(found.action(MotionLimits()), expected, atol=1e-6)
        assert not found.takeover


def test_keys_typed_ahead_are_not_acted_on_but_takeover_is(terminal):
    person, program = terminal
    with Keyboard(program) as keyboard:
        os.write(person, b"wwwwctww")
        time.sleep(0.05)
        found = keyboard.read(0.0)
        assert found.holds
        assert found.takeover
        timer = press_soon(person, b"t")
        found = keyboard.read(20.0)  # giving back ends the wait
        timer.join()
        assert found == HOLD


def test_the_terminal_is_as_it_was_after_close(terminal):
    _, program = terminal
    before = termios.tcgetattr(program)
    keyboard = Keyboard(program)
    assert not termios.tcgetattr(program)[tty.LFLAG] & (termios.ECHO | termios.ICANON)
    keyboard.close()
    keyboard.close()
    assert termios.tcgetattr(program) == before


PROGRAM = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as does what outlives its terminal
    from robot_bridge.teleop import Keyboard
    keyboard = Keyboard()
    print("ready", file=sys.stderr, flush=True)
    {then}
"""


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("then", "sent", "code"),
    [
        ("sys.exit(3)", None, 3),
        ("raise RuntimeError('a fault')", None, 1),
        ("time.sleep(60)", signal.SIGTERM, -signal.SIGTERM),
        ("time.sleep(60)", signal.SIGHUP, -signal.SIGHUP),
        ("time.sleep(60)", signal.SIGINT, -signal.SIGINT),
    ],
    ids=["exit", "exception", "SIGTERM", "SIGHUP", "SIGINT"],
)
def test_the_terminal_is_restored_however_the_program_ends(terminal, then, sent, code):
    _, program = terminal
    before = termios.tcgetattr(program)
    words = [sys.executable, "-c", textwrap.dedent(PROGRAM).format(then=then)]
    with subprocess.Popen(words, stdin=program, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        if sent is not None:
            assert not termios.tcgetattr(program)[tty.LFLAG] & termios.ECHO
            process.send_signal(sent)
        process.stderr.read()
        assert process.wait(60) == code
    assert termios.tcgetattr(program) == before


def test_a_file_is_no_terminal_and_a_lost_terminal_is_an_error(tmp_path):
    with (tmp_path / "file").open("w+b") as file, pytest.raises(RobotError, match="no terminal"):
        Keyboard(file.fileno())
    person, program = pty.openpty()
    keyboard = Keyboard(program)
    os.close(person)
    with pytest.raises(RobotError, match="the terminal is gone"):
        keyboard.read(20.0)
    keyboard.close()
    os.close(program)
