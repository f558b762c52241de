"""What every call passes before its servicer sees it: who is it, may they, not too much, not too slowly.

Calls are taken as streams of requests, unary ones as streams of one: so the gate opens before a request is read, and
what comes in goes through the ``Inbox``.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from qtopt.errors import NotAuthenticated, QtOptError, SchemaMismatch, ServerUnavailable
from qtopt.rpc.access import Access
from qtopt.rpc.audit import Audit
from qtopt.rpc.callers import ANYBODY, Caller, set_caller
from qtopt.rpc.doorkeeper import Doorkeeper
from qtopt.rpc.inbox import Inbox
from qtopt.rpc.interceptors import Context, Continuation, Handler, Interceptor, behaviour_of, run
from qtopt.rpc.knocks import Knocks
from qtopt.rpc.limits import CallLimiter, Crowded, Overdrawn
from qtopt.rpc.metrics import ServerMetrics
from qtopt.rpc.peers import network_of, peer_of
from qtopt.rpc.roles import ROLES, check_role, is_general
from qtopt.rpc.settings import SIZE_KEY, ServerConfig


class Gate(Interceptor):
    """Lets calls through to their servicers, or raises; put it behind the ErrorInterceptor, before all others."""

    def __init__(
        self,
        config: ServerConfig,
        image_size: tuple[int, int],
        access: Access,
        audit: Audit,
        metrics: ServerMetrics,
        doorkeeper: Doorkeeper,
    ) -> None:
        self._access, self._audit, self._metrics, self._doorkeeper = access, audit, metrics, doorkeeper
        self._stream_s = config.limits.stream_s
        self._limiter = CallLimiter(config.limits, config.max_calls)
        self._knocks = Knocks(config.limits.failures_per_s, config.max_calls)
        self._inbox = Inbox(config, image_size)

    def figures(self) -> dict[str, float]:
        """Returns how many calls there are, and how many with large requests are inside or wait for being read."""
        return {
            "calls_inside_all": float(self._limiter.inside),
            "calls_inside_large": float(self._inbox.large_inside),
        }

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Returns the method's handler with the gate around it."""
        handler = await continuation(details)
        method = details.method
        metadata = {key: _text(value) for key, value in details.invocation_metadata}
        serve = self._serving(handler, method, metadata.get(SIZE_KEY, ""))

        async def answer(requests: Any, context: Context) -> Any:
            peer = peer_of(context)
            self._doorkeeper.called(peer)
            caller: Caller | None = None
            try:
                caller = self._access.caller(method, metadata, context.auth_context(), peer)
                share = self._limiter.enter(caller, general=is_general(method))
                # When the client has taken the answer, or is gone; grpc's stubs know no callable of this kind.
                context.add_done_callback(cast(Any, lambda _: share.leave()))
                if caller.identity is not None and handler is not None:  # what there is not is nobody's to refuse
                    check_role(caller.identity, method)
                set_caller(caller)
                data = await serve(requests, context, caller)
                try:
                    share.answers(len(data or b""))
                except Overdrawn:
                    del data  # which the error would keep in memory until it is sent
                    raise
                return data
            except QtOptError as error:
                if type(error) is not ServerUnavailable:  # there is nothing yet; its kinds tell of a client's doing
                    what = method if method in ROLES else "unknown method"
                    who = self._access.certified(context.auth_context()) if caller is None else caller.identity
                    self._audit.refused(who, peer, what, f"{type(error).__name__}: {error}")
                self._metrics.refused(error)
                if isinstance(error, NotAuthenticated):
                    await self._knocks.refused(network_of(peer))
                if isinstance(error, Crowded):  # in gRPC's own words, which clients take as a reason to try again
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
                raise

        if handler is None:
            return grpc.stream_unary_rpc_method_handler(answer)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(answer, None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer)

    def _serving(self, handler: Handler | None, method: str, said: str) -> Callable[[Any, Context, Caller], Any]:
        """Returns what reads a call's requests and answers them: with bytes, or on a stream.

        Args:
            handler: the method's; None where there is none.
            method: its full name.
            said: how large the call says that its request is.
        """
        if handler is None:
            return _unknown
        inner, parse = behaviour_of(handler), _parser(handler, method)
        serialize = handler.response_serializer or bytes

        async def one(requests: Any, context: Context, caller: Caller) -> bytes:
            async with self._inbox.only(requests, method, caller, parse, said) as given:
                answer = await run(inner, given, context)
            self._audit.done(caller.identity or ANYBODY, peer_of(context), method, given, answer)
            return serialize(answer)

        async def stream(requests: Any, context: Context, caller: Caller) -> None:
            """Answers until the time of a stream is over; who wants to hear more asks again."""
            try:
                async with asyncio.timeout(self._stream_s) as limit:
                    if handler.request_streaming:
                        await run(inner, self._inbox.each(requests, method, caller, parse), context)
                    else:
                        async with self._inbox.only(requests, method, caller, parse, said) as given:
                            await run(inner, given, context)
            except TimeoutError:
                if not limit.expired():
                    raise

        return stream if handler.response_streaming else one


def _parser(handler: Handler, method: str) -> Callable[[bytes], Any]:
    """Returns what makes a request of bytes; gRPC itself would answer bytes that are none without a reason."""

    def parse(data: bytes) -> Any:
        if handler.request_deserializer is None:
            return data
        try:
            return handler.request_deserializer(data)
        except DecodeError as error:
            raise SchemaMismatch(f"{method}: found {len(data)} bytes that are no request of this call") from error

    return parse


async def _unknown(_: Any, context: Context, __: Caller) -> Any:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
