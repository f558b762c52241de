"""A server in a thread of its own, for processes and tests that are not asynchronous themselves."""

import asyncio
import threading
from types import TracebackType
from typing import Self

from qtopt.rpc.server import Server, Services
from qtopt.rpc.settings import ServerConfig, join_address


class BackgroundServer:
    """Starts a server in an event loop in a daemon thread and stops it.

    Example::

        with BackgroundServer(ServerConfig(port=0), Services((72, 72), lambda: store)) as server:
            connection = connect(server.address)

    Raises:
        ConfigError: the port is taken or a file cannot be read.
        QtOptError: what opening the store raised.
    """

    def __init__(self, config: ServerConfig, services: Services) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rpc-server", daemon=True)
        self._thread.start()
        self._server: Server | None = None
        try:
            # grpc.aio binds its objects to the loop of the thread that makes them.
            self._server, self.port = asyncio.run_coroutine_threadsafe(_start(config, services), self._loop).result()
        except BaseException:
            self._end_loop()
            raise
        self.address = join_address(config.host, self.port)

    def figures(self) -> dict[str, float]:
        """Returns the server's figures; none once it was stopped."""
        server = self._server
        return {} if server is None else server.figures()

    def stop(self, grace_s: float = 3.0) -> None:
        """Refuses new calls, gives running ones ``grace_s`` to end, and ends the thread; may be called again."""
        server, self._server = self._server, None
        if server is not None:
            asyncio.run_coroutine_threadsafe(server.stop(grace_s), self._loop).result()
            self._end_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(0.5)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _start(config: ServerConfig, services: Services) -> tuple[Server, int]:
    server = Server(config, services)
    return server, await server.start()
