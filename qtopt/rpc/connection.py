"""One connection to a server and the clients over it."""

import logging
import time
from types import TracebackType
from typing import Final, Self

from qtopt.errors import ServerUnavailable
from qtopt.rpc.channel import Channel
from qtopt.rpc.gen import replay_pb2 as pb
from qtopt.rpc.gen.replay_pb2_grpc import ReplayServiceStub
from qtopt.rpc.handshake import check_schemas, local_schema
from qtopt.rpc.model import ModelClient
from qtopt.rpc.monitor import MonitorClient
from qtopt.rpc.policy import PolicyClient
from qtopt.rpc.replay import ReplayClient
from qtopt.rpc.settings import ClientConfig

log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2
_CLOSED: Final = ("Socket closed", "reset by peer", "Broken pipe")


class Connection:
    """A server whose schema agrees with ours, made by ``connect``; used by any number of threads.

    Attributes:
        address: the server's.
        image_size: (height, width) [pixels] of the server's images.
        server_version: version of the server's package.
        replay: the episode store and the ring of labels.
        model: the published networks.
        monitor: the roles' figures.
    """

    def __init__(self, channel: Channel, schema: pb.Schema) -> None:
        self._channel = channel
        self.address = channel.config.address
        self.image_size = (schema.image_height, schema.image_width)
        self.server_version = schema.package_version
        self.replay = ReplayClient(channel, self.image_size)
        self.model = ModelClient(channel)
        self.monitor = MonitorClient(channel)

    def policy(self) -> PolicyClient:
        """Returns a remote policy with a session of its own, for one thread."""
        return PolicyClient(self._channel)

    def close(self) -> None:
        """Ends the connection; may be called again."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(server: str | ClientConfig, image_size: tuple[int, int] | None = None) -> Connection:
    """Connects to a server and compares schemas; waits up to ``connect_timeout_s`` for a server that is starting.

    Args:
        server: ``host:port``, or more than that in a ClientConfig.
        image_size: (height, width) [pixels] of this side's images; None takes what the server has.

    Raises:
        ConfigError: the address or a file is no good.
        ServerUnavailable: nobody answered in time.
        SchemaMismatch: both sides disagree; every difference is named.
        RemoteError: the server refused, as it does without a valid token.
    """
    config = ClientConfig(address=server) if isinstance(server, str) else server
    channel = Channel(config)
    try:
        ours = local_schema(image_size)
        theirs = _shake_hands(channel, ours)
        check_schemas(ours, theirs)
    except BaseException:
        channel.close()
        raise
    if theirs.package_version != ours.package_version:
        log.info(
            "the server at %s runs version %s, this is %s", config.address, theirs.package_version, ours.package_version
        )
    return Connection(channel, theirs)


def _shake_hands(channel: Channel, ours: pb.Schema) -> pb.Schema:
    """Returns the server's schema; tried at short intervals, since gRPC's own waiting hides why there is no answer."""
    config = channel.config
    stub = ReplayServiceStub(channel.grpc)
    deadline_s = time.monotonic() + config.connect_timeout_s
    while True:
        left_s = deadline_s - time.monotonic()
        try:
            answer = channel.call(
                stub.Handshake, pb.HandshakeRequest(schema=ours), "handshake", timeout_s=left_s, idempotent=False
            )
            return answer.schema
        except ServerUnavailable as error:
            if time.monotonic() + _PAUSE_S >= deadline_s:
                raise ServerUnavailable(
                    f"no server answered at {config.address} within {config.connect_timeout_s:g} s: "
                    f"{_advice(config, str(error))} ({error})"
                ) from error
            time.sleep(_PAUSE_S)


def _advice(config: ClientConfig, why: str) -> str:
    """Returns what to do about a server that did not answer, by what gRPC says of it."""
    if config.ca_file is None and "Socket closed" not in why:
        return "start `qtopt serve` there, or give another address; both sides must agree about TLS"
    if config.ca_file is None:
        return "somebody is there and closed the connection: it speaks TLS probably, which takes --server.ca-file"
    if "Hostname Verification" in why:
        return (
            "its certificate is one for other names: make it with `qtopt certs server --names` and all of them, or "
            "give one of its names with --server.server-name"
        )
    if "handshake failed" in why:
        return (
            f"its certificate does not come from the authority of {config.ca_file}, or it speaks no TLS: take the "
            "ca.crt of the authority that made the server's certificate"
        )
    if any(word in why for word in _CLOSED):
        return (
            "somebody is there and closed the connection: the certificates are the likely cause. See that the client's "
            "(--server.cert-file, --server.key-file) was made by the authority that the server takes clients from and "
            "has not expired (`qtopt certs show`)"
        )
    return "start `qtopt serve` there, or give another address; both sides must agree about TLS and certificates"
