"""PyBullet, imported without its greeting: what programs show on the terminal is theirs."""

import ctypes
import os
import sys


def _import_quietly() -> None:
    sys.stderr.flush()
    kept = os.dup(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, 2)
        import pybullet  # noqa: F401

        ctypes.CDLL(None).fflush(None)
    finally:
        os.dup2(kept, 2)
        os.close(silence)
        os.close(kept)


if "pybullet" not in sys.modules:
    _import_quietly()

import pybullet as bullet  # noqa: E402

__all__ = ["bullet"]
