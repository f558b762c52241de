"""The gRPC channel beneath a client's calls, made anew when its certificates have been replaced."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc

from qtopt.rpc.watched import Watched

Request = TypeVar("Request")
Response = TypeVar("Response")
Bound = TypeVar("Bound")


class Line:
    """What unary methods of a stub need of a gRPC channel; each call begins on the newest and ends where it began.

    Args:
        files: what channels are made of; a change makes a new one with the next call.
        open_channel: makes one; ConfigError leaves the one before in use.

    Raises:
        ConfigError: what ``open_channel`` raised the first time.
    """

    def __init__(self, files: Sequence[Path], open_channel: Callable[[], grpc.Channel]) -> None:
        self._made = Watched(files, open_channel)
        self._newest = self._made.get()
        self._under_way: Counter[grpc.Channel] = Counter()
        self._closed = False
        self._lock = threading.Lock()

    def unary_unary(self, *described: Any, **more: Any) -> "_Method[Any, Any]":
        """Returns a method, as ``grpc.Channel.unary_unary`` does."""
        return _Method(self, lambda channel: channel.unary_unary(*described, **more))

    @contextmanager
    def in_use(self, bind: Callable[[grpc.Channel], Bound]) -> Iterator[Bound]:
        """Gives what ``bind`` makes of the newest channel, for one call; a replaced one is closed after its last call.

        Raises:
            ValueError: the line is closed. A method bound to a closed gRPC channel would end the process.
        """
        with self._lock:
            if self._closed:
                raise ValueError("call on a closed channel")
            self._renew()
            channel = self._newest
            bound = bind(channel)
            self._under_way[channel] += 1
        try:
            yield bound
        finally:
            with self._lock:
                self._under_way[channel] -= 1
                self._close_if_over(channel)

    def close(self) -> None:
        """Ends all connections, and with them the calls under way."""
        with self._lock:
            self._closed = True
            for channel in {self._newest, *self._under_way}:
                channel.close()

    def _renew(self) -> None:
        found = self._made.get()
        if found is not self._newest:
            before, self._newest = self._newest, found
            self._close_if_over(before)

    def _close_if_over(self, channel: grpc.Channel) -> None:
        if not self._under_way[channel] and channel is not self._newest:
            del self._under_way[channel]
            channel.close()


class _Method(Generic[Request, Response]):
    """A unary method on whichever channel is the newest."""

    def __init__(
        self, line: Line, bind: "Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[Request, Response]]"
    ) -> None:
        self._line, self._bind = line, bind
        self._bound: tuple[grpc.Channel, grpc.UnaryUnaryMultiCallable[Request, Response]] | None = None

    def __call__(self, request: Request, **given: Any) -> Response:
        with self._line.in_use(self._bind_once) as method:
            return method(request, **given)

    def _bind_once(self, channel: grpc.Channel) -> "grpc.UnaryUnaryMultiCallable[Request, Response]":
        if self._bound is None or self._bound[0] is not channel:
            self._bound = (channel, self._bind(channel))
        return self._bound[1]
