"""How requests come into memory: a few at a time, and none larger than its method needs.

gRPC reads a request of up to ``MESSAGE_LIMIT_BYTES`` whole wherever one is asked for, and of what is not asked for
``UNREAD_BYTES``. So a place comes first, and no client has more than a quarter of them; what is larger than it may be
is dropped before it is parsed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from qtopt.errors import RemoteError, SchemaMismatch
from qtopt.legal import MAX_METADATA
from qtopt.rpc.arrays import largest_jpeg_bytes
from qtopt.rpc.callers import Caller
from qtopt.rpc.limits import Overdrawn
from qtopt.rpc.settings import MESSAGE_LIMIT_BYTES, SLOWEST_LINK, ServerConfig
from qtopt.rpc.turns import Turns
from qtopt.specs import MAX_STEPS

READ_AT_ONCE: Final = {
    "/qtopt.v1.ReplayService/AppendEpisode": 16,
    "/qtopt.v1.PolicyService/SelectAction": 16,
    "/qtopt.v1.ModelService/Publish": 2,
}
"""Requests of megabytes, by method: how many are in memory at a time, from when they are read until they are answered.
The others wait with their clients."""
_SHARE: Final = 4
"""One client has at most this part of them, in which slow requests count as long as they are on their way."""
SMALL_BYTES: Final = 1 << 20
"""The largest request of any other method."""
_DIGITS: Final = 9
_CHARACTER_BYTES: Final = 4  # of UTF-8 at most
_SLOW_S: Final = 1.0
_SLOW_BESIDE: Final = 3
"""A request that has not come after so long lets another one in, until there are so many times as many in memory."""
_SMALL_EACH: Final = 2

Parse = Callable[[bytes], Any]


class Inbox:
    """Reads the requests of one server."""

    def __init__(self, config: ServerConfig, image_size: tuple[int, int]) -> None:
        self._largest = largest_requests(image_size)
        self._request_s = config.limits.request_s
        self._large = {
            method: Turns(
                method.rpartition("/")[2],
                count,
                each=max(count // _SHARE, 1),
                waiting=config.max_calls,
                waiting_each=config.max_calls,
                lendable=_SLOW_BESIDE * count,
            )
            for method, count in READ_AT_ONCE.items()
        }
        self._small = _small_places("small requests", 8, config.max_calls)
        self._strangers = _small_places("requests of strangers", 2, config.max_calls)
        self._streams = _small_places("requests of a stream", 4, config.max_calls)  # which may be long in coming

    @property
    def large_inside(self) -> int:
        """Calls with large requests that are inside or wait for being read."""
        return sum(turns.inside for turns in self._large.values())

    @asynccontextmanager
    async def only(
        self, requests: Any, method: str, caller: Caller, parse: Parse, said: str = ""
    ) -> AsyncIterator[Any]:
        """Holds the one request of a call, parsed, during the block: a large one in a place of its own.

        Args:
            requests: the call's.
            method: its full name.
            caller: who calls.
            parse: makes a request of bytes.
            said: how many bytes the call says that it sends; what says nothing has ``request_s``.
        """
        within_s = self.patience_s(method, said)
        if method not in self._large:
            places = self._strangers if caller.identity is None else self._small
            async with places.place(caller.account, _SLOW_S):
                given = self._parsed(await _next(requests, within_s), method, parse)
            yield given
            return
        async with self._large[method].place(caller.account, _SLOW_S) as place:
            given = self._parsed(await _next(requests, within_s), method, parse)
            place.arrived()
            yield given

    async def each(self, requests: Any, method: str, caller: Caller, parse: Parse) -> AsyncIterator[Any]:
        """Yields the requests of a stream, parsed."""
        stream = aiter(requests)
        while True:
            async with self._streams.place(caller.account, _SLOW_S):
                try:
                    given = self._parsed(await anext(stream), method, parse)
                except StopAsyncIteration:
                    return
            yield given

    def patience_s(self, method: str, said: str) -> float:
        """Returns how long a request may be on its way [s].

        gRPC shows nothing of it before all has come, so it is the call that says how many bytes these are. It is
        believed up to what the method's largest request has: no longer does who lies stall a place of its share.
        """
        size = int(said) if said.isdecimal() and len(said) <= _DIGITS else 0
        return self._request_s + min(size, self._largest.get(method, SMALL_BYTES)) / SLOWEST_LINK

    def _parsed(self, data: bytes, method: str, parse: Parse) -> Any:
        size, most = len(data), self._largest.get(method, SMALL_BYTES)
        if size > most:
            del data  # which the error would keep in memory until it is sent
            raise SchemaMismatch(
                f"{method.rpartition('/')[2]}: found a request of {size} bytes, expected at most {most}: only "
                "those with images of this server's size or networks may be larger; send less in one call"
            )
        return parse(data)


async def _next(requests: Any, within_s: float) -> bytes:
    """Returns the one request of a call."""
    stream = aiter(requests)
    try:
        async with asyncio.timeout(within_s):
            found: bytes = await anext(stream)
            return found
    except TimeoutError:
        raise Overdrawn(f"the request had not come {within_s:g} s after its call began: send it faster") from None
    except StopAsyncIteration:
        raise RemoteError(
            f"no request came, or one of more than {MESSAGE_LIMIT_BYTES} bytes, which is the limit"
        ) from None
    finally:
        await stream.aclose()  # left open, it keeps the request until the garbage collector comes by, much later


def largest_requests(image_size: tuple[int, int]) -> dict[str, int]:
    """Returns the bytes that requests may have, by method, where images are of ``image_size`` (height, width) [px].

    What is not there may have ``SMALL_BYTES``, which all others have beside their arrays.
    """
    image_bytes = largest_jpeg_bytes(image_size)  # more than raw pixels
    metadata_bytes = _CHARACTER_BYTES * MAX_METADATA
    found = {
        "/qtopt.v1.ReplayService/AppendEpisode": SMALL_BYTES + (MAX_STEPS + 1) * image_bytes + metadata_bytes,
        "/qtopt.v1.PolicyService/SelectAction": SMALL_BYTES + image_bytes,
        "/qtopt.v1.ModelService/Publish": MESSAGE_LIMIT_BYTES,
    }
    return {method: min(size, MESSAGE_LIMIT_BYTES) for method, size in found.items()}


def _small_places(name: str, count: int, waiting: int) -> Turns:
    """Returns places that are given back when a request has arrived: some for all clients, fewer for each."""
    return Turns(name, count, each=_SMALL_EACH, waiting=waiting, waiting_each=waiting, lendable=count)
