"""PyBullet, imported without its greeting: a program that prints one line of JSON must print nothing else."""

import ctypes
import os
import sys


def _import_quietly() -> None:
    sys.stdout.flush()
    kept = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, 1)
        import pybullet  # noqa: F401

        ctypes.CDLL(None).fflush(None)
    finally:
        os.dup2(kept, 1)
        os.close(silence)
        os.close(kept)


if "pybullet" not in sys.modules:
    _import_quietly()

import pybullet as bullet  # noqa: E402

__all__ = ["bullet"]
