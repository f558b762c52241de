"""Commands run within the test process: signals and logs are put back afterwards."""

import logging
import signal
import sys

import pytest
import structlog

from qtopt import cli


@pytest.fixture
def qtopt(capsys, monkeypatch):
    """Returns a function that runs ``qtopt <words>`` and returns exit code, stdout and stderr."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    monkeypatch.delenv("QTOPT_DEBUG", raising=False)

    def run(*words):
        words = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["qtopt", *words])
        code = cli.main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = kept
