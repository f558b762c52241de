"""The server process: every service on one port, health and reflection, an orderly start and stop."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from qtopt.errors import ConfigError
from qtopt.interfaces import Policy
from qtopt.rpc.access import Access
from qtopt.rpc.allocator import keep_freed_memory
from qtopt.rpc.audit import Audit
from qtopt.rpc.board import FigureBoard
from qtopt.rpc.channel import SERVER_OPTIONS
from qtopt.rpc.doorkeeper import Doorkeeper
from qtopt.rpc.gate import Gate
from qtopt.rpc.gen import model_pb2_grpc, monitor_pb2_grpc, policy_pb2_grpc, replay_pb2_grpc
from qtopt.rpc.health import Health, Look
from qtopt.rpc.interceptors import ErrorInterceptor
from qtopt.rpc.metrics import CountingInterceptor, ServerMetrics
from qtopt.rpc.model import ModelServicer
from qtopt.rpc.monitor import MonitorServicer
from qtopt.rpc.policy import PolicyServicer
from qtopt.rpc.registry import ModelRegistry
from qtopt.rpc.replay import ReplayServicer, ReplayStore
from qtopt.rpc.settings import ServerConfig, join_address
from qtopt.rpc.tls import ServerCertificates

log = logging.getLogger(__name__)

_PREFIX: Final = "qtopt.v1."
_OPENING: Final = "the store is being opened"
_REFUSED_BY_THE_GATE: Final = 2
"""gRPC takes so many times as many calls as are handled: it would refuse whoever comes next, the gate knows whom."""


@dataclass(frozen=True, slots=True)
class Services:
    """What a server serves.

    Attributes:
        image_size: (height, width) [pixels] of the store's images.
        open_store: returns the open store; called once, in a thread, after the port was bound. Closing is its owner's.
        registry: the published networks.
        board: the roles' figures.
        make_policy: returns a new policy for one session; None serves no policy.
        policy_version: returns the version of the networks behind the policies.
        metrics: counts what is served.
        looks: by service (``Replay``, ``Model``, ``Policy``), says what keeps it from serving; asked every few seconds.
        audit: is told who appended, published and was refused. Closing is its owner's.
    """

    image_size: tuple[int, int]
    open_store: Callable[[], ReplayStore]
    registry: ModelRegistry = field(default_factory=ModelRegistry)
    board: FigureBoard = field(default_factory=FigureBoard)
    make_policy: Callable[[], Policy] | None = None
    policy_version: Callable[[], int] = lambda: 0
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    looks: Mapping[str, Look] = field(default_factory=dict)
    audit: Audit = field(default_factory=Audit)


class Server:
    """Serves on one port, in the event loop that ``start`` is awaited in.

    Example::

    server = Server(ServerConfig(port=0), Services((72, 72), open_store))
    port = await server.start()
    ...
    await server.stop()
    """

    def __init__(self, config: ServerConfig, services: Services) -> None:
        self._config = config
        self._services = services
        self._server: grpc.aio.Server | None = None
        self._doorkeeper = Doorkeeper(services.audit, services.metrics)
        self._gate = Gate(
            config,
            services.image_size,
            Access(config, services.metrics),
            services.audit,
            services.metrics,
            self._doorkeeper,
        )
        self._replay = ReplayServicer(services.image_size, services.metrics)
        self._model = ModelServicer(services.registry)
        self._policy = None
        if services.make_policy is not None:
            self._policy = PolicyServicer(services.make_policy, services.policy_version, services.image_size)
        served = ("Replay", "Model", "Monitor") + (("Policy",) if self._policy is not None else ())
        looks = {name: services.looks.get(name, _nothing) for name in served}
        looks["Replay"] = lambda: _OPENING if not self._replay.is_open else services.looks.get("Replay", _nothing)()
        self._names = [_full(name) for name in served]
        self._health = Health(
            {_full(name): look for name, look in looks.items()}, (_full("Replay"), _full("Model")), services.metrics
        )

    async def start(self) -> int:
        """Binds, opens the store and serves; returns the port. Health says NOT_SERVING until the store is open.

        Raises:
            ConfigError: the port is taken or a file cannot be read.
            QtOptError: what opening the store raised; the server is stopped again.
        """
        keep_freed_memory()
        server = self._make()
        port = self._bind(server)
        await self._health.look()
        await server.start()
        self._server = server
        try:
            store = await asyncio.get_running_loop().run_in_executor(None, self._services.open_store)
        except BaseException:
            await self.stop(0.0)
            raise
        self._replay.opened(store)
        await self._health.look()
        self._health.watch()
        log.info("serving on %s", join_address(self._config.host, port))
        return port

    async def stop(self, grace_s: float = 3.0) -> None:
        """Refuses new calls, gives running ones ``grace_s`` to end, then cuts them off."""
        server, self._server = self._server, None
        if server is None:
            return
        await self._health.stop()
        await server.stop(grace_s)
        await self._doorkeeper.close()
        for servicer in (self._replay, self._model, self._policy):
            if servicer is not None:
                await servicer.close()

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        if self._server is not None:
            await self._server.wait_for_termination()

    def _make(self) -> grpc.aio.Server:
        config = self._config
        server = grpc.aio.server(
            interceptors=[CountingInterceptor(self._services.metrics), ErrorInterceptor(), self._gate],
            options=[*SERVER_OPTIONS, *config.limits.channel_options()],
            maximum_concurrent_rpcs=_REFUSED_BY_THE_GATE * (config.max_calls + config.limits.strangers_calls),
        )
        replay_pb2_grpc.add_ReplayServiceServicer_to_server(self._replay, server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self._model, server)
        monitor_pb2_grpc.add_MonitorServiceServicer_to_server(MonitorServicer(self._services.board), server)
        if self._policy is not None:
            policy_pb2_grpc.add_PolicyServiceServicer_to_server(self._policy, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        if self._config.describes_itself:
            reflection.enable_server_reflection([*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        return server

    def _bind(self, server: grpc.aio.Server) -> int:
        config = self._config
        _probe(config)
        try:
            if config.cert_file is None:
                return server.add_insecure_port(config.address)
            credentials = ServerCertificates(config, self._services.metrics, self._doorkeeper.arrived).credentials()
            port: int = server.add_secure_port(config.address, credentials)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {config.address}: {error}") from error
        self._doorkeeper.start(port)
        return port

    def figures(self) -> dict[str, float]:
        """Returns how calls went, how many of each kind wait, and so of the audit log's lines."""
        services = self._services
        return services.metrics.figures() | self._replay.figures() | self._gate.figures() | services.audit.figures()


def _full(name: str) -> str:
    return f"{_PREFIX}{name}Service"


def _nothing() -> None:
    """Says that nothing keeps a service from serving."""


def _probe(config: ServerConfig) -> None:
    """Raises ConfigError with the system's reason if the address cannot be bound, which gRPC keeps to itself."""
    if config.host.startswith("unix:"):
        return
    host = "127.0.0.1" if config.host == "localhost" else config.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: a port that was just left is free
        try:
            probe.bind((host, config.port))
        except OSError as error:
            why = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE:
                why = f"port {config.port} is in use by another process: stop it, or choose another (0: any free one)"
            raise ConfigError(f"cannot listen on {config.address}: {why}") from error
