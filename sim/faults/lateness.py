"""How late a busy machine wakes whoever sleeps."""

import threading
import time


class Lateness:
    """How much later than asked for this machine wakes a sleeper, at worst, while a ``with`` statement runs.

    Attributes:
        most_s: so much.
    """

    def __init__(self) -> None:
        self.most_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lateness", daemon=True)

    def __enter__(self) -> "Lateness":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            due = time.monotonic() + 0.01
            time.sleep(0.01)
            self.most_s = max(self.most_s, time.monotonic() - due)
