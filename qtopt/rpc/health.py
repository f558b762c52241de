"""Health that tells the truth: what keeps a service from serving is looked for again and again, not assumed."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2

from qtopt.rpc.channel import Channel
from qtopt.rpc.interceptors import Context
from qtopt.rpc.metrics import ServerMetrics
from qtopt.rpc.settings import ClientConfig
from qtopt.rpc.status import translate_errors

log = logging.getLogger(__name__)

Look = Callable[[], str | None]
"""Says what keeps a service from serving; None where nothing does."""

LOOK_EVERY_S: Final = 2.0
_ANSWER_WITHIN_S: Final = 5.0
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class _Servicer(health.aio.HealthServicer):  # type: ignore[misc,name-defined]  # set by the library at its import
    """The library's, with the one method that it leaves out."""

    async def List(self, request: health_pb2.HealthListRequest, context: Context) -> health_pb2.HealthListResponse:
        """Answers with the health of every service."""
        told = self._server_status.items()
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=status) for name, status in told}
        )


class Health:
    """Serves ``grpc.health.v1.Health``.

    Args:
        looks: by full service name.
        essential: services that all must serve for the server as a whole (the empty name) to serve.
        metrics: told as well.
    """

    def __init__(self, looks: Mapping[str, Look], essential: tuple[str, ...], metrics: ServerMetrics) -> None:
        self.servicer = _Servicer()
        self._looks, self._essential, self._metrics = dict(looks), essential, metrics
        self._troubles: dict[str, str | None] = {}
        self._looking: dict[str, asyncio.Future[str | None]] = {}  # a disk that hangs is asked again when it answered
        self._watch: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Looks now, and tells whoever asks from now on."""
        loop = asyncio.get_running_loop()
        for name in self._looks.keys() - self._looking.keys():
            self._looking[name] = loop.run_in_executor(None, _trouble, self._looks[name])
        done, _ = await asyncio.wait(self._looking.values(), timeout=_ANSWER_WITHIN_S)
        silent = f"found no answer from the disk within {_ANSWER_WITHIN_S:g} s"
        found = {name: self._looking[name].result() if self._looking[name] in done else silent for name in self._looks}
        self._looking = {name: future for name, future in self._looking.items() if future not in done}
        await self._tell(found)

    def watch(self) -> None:
        """Begins to look every ``LOOK_EVERY_S`` seconds."""
        self._watch = asyncio.get_running_loop().create_task(self._look_again())

    async def stop(self) -> None:
        """Says from now on that nothing serves."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        for name in ("", *self._looks):
            await self.servicer.set(name, _NOT_SERVING)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def _tell(self, found: Mapping[str, str | None]) -> None:
        whole = next((found[name] for name in self._essential if found[name] is not None), None)
        troubles = {"": whole, **found}
        for name, trouble in troubles.items():
            if name not in self._troubles or (trouble is None) != (self._troubles[name] is None):
                await self.servicer.set(name, _SERVING if trouble is None else _NOT_SERVING)
                if name and trouble is not None and self._troubles:
                    log.warning("%s does not serve: %s", name, trouble)
                elif name and self._troubles:
                    log.info("%s serves", name)
        self._troubles = troubles
        self._metrics.serving({name: trouble is None for name, trouble in troubles.items()})


def _trouble(look: Look) -> str | None:
    try:
        return look()
    except Exception as error:  # whatever it is, nobody can vouch for the service
        return f"found {type(error).__name__} when looking: {error}"


def check_health(config: ClientConfig, services: tuple[str, ...], timeout_s: float = 2.0) -> dict[str, str]:
    """Asks a server for the health of each service; returns the name of each status, UNKNOWN where it has none.

    Raises:
        ServerUnavailable: nobody answered.
        RemoteError: the server refused.
    """
    channel = Channel(config)
    check: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    check = channel.grpc.unary_unary(
        f"/{health.SERVICE_NAME}/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    found: dict[str, str] = {}
    try:
        for service in services:
            request = health_pb2.HealthCheckRequest(service=service)
            with translate_errors(f"health at {config.address}"):
                try:
                    answer = check(request, timeout=timeout_s)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.NOT_FOUND:
                        raise
                    found[service] = "UNKNOWN"
                else:
                    found[service] = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    finally:
        channel.close()
    return found
