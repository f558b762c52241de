"""Waiting for threads and processes that may hang: never without end."""

import threading
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from typing import Final

from qtopt.errors import ProcessFailed

PATIENCE_S: Final = 120.0


def join_within(workers: Iterable[threading.Thread | BaseProcess], seconds: float = PATIENCE_S) -> None:
    """Returns when each has ended; raises ProcessFailed naming the first that has not after ``seconds`` of its own."""
    for worker in workers:
        worker.join(seconds)
        if worker.is_alive():
            raise ProcessFailed(f"{worker.name} has not ended within {seconds:g} s, expected it to: it hangs")
