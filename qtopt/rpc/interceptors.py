"""What happens around every call on a server: our errors become a status. And what interceptors are made of."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio

from qtopt.errors import QtOptError
from qtopt.rpc.status import log_and_hide, to_status

if TYPE_CHECKING:  # only grpc's stubs know these as generic
    Interceptor = grpc.aio.ServerInterceptor[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Interceptor, Handler, Context = grpc.aio.ServerInterceptor, grpc.RpcMethodHandler, grpc.aio.ServicerContext
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]]
Behaviour = Callable[[Any, Context], Any]
"""What a handler does with a request, or an iterator of them: a coroutine, or an asynchronous generator of answers."""


def behaviour_of(handler: Handler) -> Behaviour:
    """Returns what a handler of any of the four kinds does."""
    found = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return cast(Behaviour, found)


def with_behaviour(handler: Handler, answer: Behaviour) -> Handler:
    """Returns a handler of the same kind that does something else."""
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return cast("Handler", make(answer, handler.request_deserializer, handler.response_serializer))


async def run(behaviour: Behaviour, request: Any, context: Context) -> Any:
    """Runs a behaviour of either style within a coroutine: returns its answer, or writes its answers."""
    result = behaviour(request, context)
    if not hasattr(result, "__aiter__"):
        return await result
    async for answer in result:
        await context.write(answer)
    return None


class ErrorInterceptor(Interceptor):
    """Sends what a call raises as a status with its message, before the gate; unforeseen errors are logged here."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Returns the handler, wrapped."""
        handler = await continuation(handler_call_details)
        assert handler is not None  # the gate behind has one for every method, those that there are not included
        inner, method = behaviour_of(handler), handler_call_details.method

        async def answer(request: Any, context: Context) -> Any:
            try:
                with log_and_hide(method):
                    return await run(inner, request, context)
            except QtOptError as error:
                return await context.abort(*to_status(error))

        return with_behaviour(handler, answer)
