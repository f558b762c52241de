"""Calls of those who cannot say who they are: so many a second are refused at once, further ones after a pause.

Of what such a call costs, gRPC's own part is nine tenths, which no refusal spares. But gRPC lets a connection have only
so many calls at a time, and who waits for an answer cannot ask again.
"""

import asyncio
import random
from collections import OrderedDict
from typing import Final

from qtopt.rpc.limits import Bucket

PAUSE_S: Final = 2.0
_BURST_S: Final = 10.0
_HOSTS: Final = 4096


class Knocks:
    """Slows down hosts that are refused again and again; for one event loop.

    Args:
        per_s: refusals of one host, on average, without a pause.
        paused: calls that are kept waiting at a time; more are refused at once, so that they do not fill the server.
    """

    def __init__(self, per_s: float, paused: int) -> None:
        self._per_s, self._room = per_s, paused
        self._hosts: OrderedDict[str, Bucket] = OrderedDict()  # the one that was refused last at the end

    async def refused(self, host: str) -> None:
        """Returns when a call of ``host`` may be told that it is refused."""
        bucket = self._hosts.pop(host, None) or Bucket(self._per_s, _BURST_S * self._per_s)
        self._hosts[host] = bucket
        if len(self._hosts) > _HOSTS:
            self._hosts.popitem(last=False)
        if bucket.take() or not self._room:
            return
        self._room -= 1
        try:
            await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE_S)  # not all of them at once
        finally:
            self._room += 1
