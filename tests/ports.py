"""Ports for servers that start later: below those that the system gives to connections, other ones for each worker."""

import contextlib
import itertools
import os
import socket

_FIRST, _EACH, _WORKERS, _ROW = 20_000, 1_000, 8, 10
_CALLS = itertools.count(os.getpid())  # test runs side by side begin at other places


def free_port(count=1):
    """Returns the first of so many ports in a row, ten at most, that nobody listens on."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _WORKERS
    for _ in range(_EACH // _ROW):
        first = _FIRST + worker * _EACH + next(_CALLS) * _ROW % _EACH
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")
