"""What every call passes before its servicer sees it: who is it, may they, not too much, not too slowly.

Unary calls are taken as streams of one request: so the gate opens before a request is read, and a stranger's 64 MB are
never in memory. Nor is what waits: large requests of clients who may are read a few at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from qtopt.errors import NotAuthenticated, QtOptError, RemoteError, SchemaMismatch, ServerUnavailable
from qtopt.rpc.audit import Audit
from qtopt.rpc.doorkeeper import Doorkeeper
from qtopt.rpc.interceptors import (
    Behaviour,
    Context,
    Continuation,
    Handler,
    Interceptor,
    behaviour_of,
    run,
    with_behaviour,
)
from qtopt.rpc.limits import ClientLimiter
from qtopt.rpc.roles import ROLES, Identity, check_role, from_uri, is_open
from qtopt.rpc.settings import MESSAGE_LIMIT_BYTES, ServerConfig
from qtopt.rpc.tokens import find_token, read_tokens
from qtopt.rpc.turns import Place, Turns
from qtopt.rpc.watched import Watched

READ_AT_ONCE: Final = {
    "/qtopt.v1.ReplayService/AppendEpisode": 16,
    "/qtopt.v1.ReplayService/PutTargets": 16,
    "/qtopt.v1.PolicyService/SelectAction": 16,
    "/qtopt.v1.ModelService/Publish": 2,
}
"""Requests of megabytes, by method: how many are in memory at a time, from when they are read until they are answered.
The others wait with their clients, but for the first ``UNREAD_BYTES`` of each."""
_SLOW_S: Final = 1.0
_SLOW_BESIDE: Final = 3
"""A request that has not come after so long lets another one in, until there are so many times as many in memory."""
ANYBODY: Final = Identity("anybody", None)
"""The client of a server that asks nobody who they are."""


class Access:
    """Tells who calls, by client certificate, by token, or by both, which then have to name the same.

    Raises:
        ConfigError: the list of tokens is no good.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._by_certificate = config.client_ca_file is not None
        path = config.token_file
        self._tokens = None if path is None else Watched([path], lambda: read_tokens(path))

    def identify(self, metadata: Mapping[str, str], auth: Mapping[str, Iterable[bytes]]) -> Identity:
        """Returns who calls; raises NotAuthenticated."""
        certified = _certified(auth) if self._by_certificate else None
        if self._tokens is None:
            return certified or ANYBODY
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            raise NotAuthenticated("no bearer token came with the call: give the client its --server.token-file")
        entry = find_token(self._tokens.get(), token)
        if entry is None:
            raise NotAuthenticated(
                "no valid bearer token came with the call: the one that came is not known here, or expired, revoked or "
                "replaced; see that the server has the newest list of tokens and the client its newest token"
            )
        if entry.expires < datetime.now(UTC):
            raise NotAuthenticated(
                f"the token of {entry.identity.name} has expired on {entry.expires:%Y-%m-%d}: make a new one with "
                "qtopt certs renew"
            )
        if certified is not None and certified != entry.identity:
            raise NotAuthenticated(
                f"the token is that of the {entry.identity.role} {entry.identity.name}, the certificate that of the "
                f"{certified.role} {certified.name}: expected both of one client"
            )
        return entry.identity

    def certified(self, auth: Mapping[str, Iterable[bytes]]) -> Identity | None:
        """Returns whom the client's certificate names, whatever its token is worth; None without one."""
        try:
            return _certified(auth) if self._by_certificate else None
        except NotAuthenticated:
            return None


def _certified(auth: Mapping[str, Iterable[bytes]]) -> Identity:
    named = [found for uri in auth.get("peer_uri", ()) if (found := from_uri(uri.decode("utf-8", "replace")))]
    if len(named) != 1:
        raise NotAuthenticated(
            f"the client's certificate names {len(named)} roles, expected one: make it with qtopt certs client"
        )
    return named[0]


class Gate(Interceptor):
    """Lets calls through to their servicers, or raises; put it behind the ErrorInterceptor, before all others."""

    def __init__(self, config: ServerConfig, access: Access, audit: Audit, doorkeeper: Doorkeeper) -> None:
        self._access, self._audit, self._doorkeeper = access, audit, doorkeeper
        self._request_s = config.limits.request_s
        self._limiter = ClientLimiter(config.limits)
        self._unread = {
            method: Turns(
                method.rpartition("/")[2],
                count,
                waiting=config.max_calls,
                waiting_each=config.max_calls,
                lendable=_SLOW_BESIDE * count,
            )
            for method, count in READ_AT_ONCE.items()
        }

    def figures(self) -> dict[str, float]:
        """Returns how many calls with large requests are inside or wait for being read."""
        return {"calls_inside_large": float(sum(turns.inside for turns in self._unread.values()))}

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Returns the method's handler with the gate around it."""
        handler = await continuation(details)
        method = details.method
        metadata = {key: _text(value) for key, value in details.invocation_metadata}
        inner: Behaviour = _unknown if handler is None else behaviour_of(handler)
        parse = _parser(handler, method)
        streams = handler is not None and (handler.request_streaming or handler.response_streaming)

        async def answer(request: Any, context: Context) -> Any:
            peer = peer_of(context)
            self._doorkeeper.called(peer)
            client: Identity | None = None
            try:
                client = self._identify(method, metadata, context)
                check_role(client, method)
                who = peer if client is ANYBODY else client.name
                with self._limiter.call(who):
                    async with self._room(method, who) as place:
                        given = request if streams else parse(await self._only(request))
                        if place is not None:
                            place.arrived()
                        given_back = await run(inner, given, context)
            except QtOptError as error:
                what = method if method in ROLES else "unknown method"
                who_called = client or self._access.certified(context.auth_context())
                self._audit.refused(who_called, peer, what, f"{type(error).__name__}: {error}")
                raise
            self._audit.done(client, peer, method, given, given_back)
            return given_back

        if handler is None:
            return grpc.stream_unary_rpc_method_handler(answer)
        if streams:
            return with_behaviour(handler, answer)
        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    def _identify(self, method: str, metadata: Mapping[str, str], context: Context) -> Identity:
        if is_open(method):
            return ANYBODY
        return self._access.identify(metadata, context.auth_context())

    def _room(self, method: str, client: str) -> AbstractAsyncContextManager[Place | None]:
        return self._unread[method].place(client, _SLOW_S) if method in self._unread else nullcontext()

    async def _only(self, requests: AsyncIterator[Any]) -> Any:
        """Returns the one request of a unary call."""
        stream: Any = aiter(requests)
        try:
            async with asyncio.timeout(self._request_s):
                return await anext(stream)
        except TimeoutError:
            raise ServerUnavailable(
                f"the request had not come {self._request_s:g} s after its call began: send it faster"
            ) from None
        except StopAsyncIteration:
            raise RemoteError(
                f"no request came, or one of more than {MESSAGE_LIMIT_BYTES} bytes, which is the limit"
            ) from None
        finally:
            await stream.aclose()  # left open, it keeps the request until the garbage collector comes by, much later


def _parser(handler: Handler | None, method: str) -> Callable[[bytes], Any]:
    """Returns what makes a request of bytes; gRPC itself would answer bytes that are none without a reason."""

    def parse(data: bytes) -> Any:
        if handler is None or handler.request_deserializer is None:
            return data
        try:
            return handler.request_deserializer(data)
        except DecodeError as error:
            raise SchemaMismatch(f"{method}: found {len(data)} bytes that are no request of this call") from error

    return parse


async def _unknown(_: Any, context: Context) -> Any:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")


def peer_of(context: Context) -> str:
    """Returns the caller's address as ``10.0.0.7:40100``, ``[fd00::7]:40100`` or ``unix:...``."""
    peer = unquote(context.peer())
    return peer.removeprefix("ipv4:").removeprefix("ipv6:")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
