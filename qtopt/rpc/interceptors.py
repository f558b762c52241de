"""What happens around every call on a server: the token is asked for, and our errors become a status."""

import hmac
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from qtopt.errors import QtOptError, SchemaMismatch
from qtopt.rpc.status import log_and_hide, to_status

if TYPE_CHECKING:  # only grpc's stubs know these as generic
    Interceptor = grpc.aio.ServerInterceptor[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Interceptor, Handler, Context = grpc.aio.ServerInterceptor, grpc.RpcMethodHandler, grpc.aio.ServicerContext
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]

_OPEN_TO_ALL: Final = "/grpc.health.v1.Health/"


class ErrorInterceptor(Interceptor):
    """Sends what a unary call raises as a status with its message; unforeseen errors are logged here.

    Requests are parsed here too: gRPC would answer one that cannot be with INTERNAL, and without a reason.
    """

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Returns the handler, wrapped."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        inner: Any = handler.unary_unary
        parse: Any = handler.request_deserializer
        method = handler_call_details.method

        async def answer(data: bytes, context: Context) -> Any:
            try:
                with log_and_hide(method):
                    return await inner(_parsed(parse, data, method), context)
            except QtOptError as error:
                return await context.abort(*to_status(error))

        return grpc.unary_unary_rpc_method_handler(answer, None, handler.response_serializer)


def _parsed(parse: Callable[[bytes], Any], data: bytes, method: str) -> Any:
    try:
        return parse(data)
    except DecodeError as error:
        raise SchemaMismatch(f"{method}: found {len(data)} bytes that are no request of this call: {error}") from error


class TokenInterceptor(Interceptor):
    """Refuses calls without the bearer token; health checks, which tell nothing, need none."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Returns the handler, or one that refuses."""
        if handler_call_details.method.startswith(_OPEN_TO_ALL):
            return await continuation(handler_call_details)
        for key, value in handler_call_details.invocation_metadata:
            given = value.encode() if isinstance(value, str) else value
            if key == "authorization" and hmac.compare_digest(given, self._expected):
                return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_refuse)


async def _refuse(request: Any, context: Context) -> Any:
    message = "no valid bearer token came with the call, expected the server's: give the client its token_file"
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, message)
