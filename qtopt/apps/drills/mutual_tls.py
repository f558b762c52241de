"""Mutual TLS for a drill: every client has a certificate and a token of its own, as ``qtopt certs`` makes them."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from qtopt.apps.certificates import host_name
from qtopt.apps.certs import Keys
from qtopt.rpc import ClientConfig, ServerConfig
from qtopt.rpc.roles import Role, make_identity


def make_secrets(directory: Path, host: str, collectors: Iterable[str]) -> None:
    """Makes an authority, a certificate for the server at ``host``, and what each collector proves itself with."""
    keys = Keys(directory)
    keys.make_authority()
    keys.make_server([host_name(host)], days=1.0)
    for name in collectors:
        keys.make_client(make_identity(name, Role.COLLECTOR), days=1.0)


def secured_server(directory: Path, host: str, port: int) -> ServerConfig:
    """Returns how the server listens."""
    ours = directory / "server"
    return ServerConfig(
        host=host,
        port=port,
        cert_file=ours / "server.crt",
        key_file=ours / "server.key",
        client_ca_file=ours / "ca.crt",
        token_file=ours / "tokens",
    )


def secured_client(directory: Path, name: str, config: ClientConfig) -> ClientConfig:
    """Returns ``config`` with what a collector proves itself with."""
    theirs = directory / "clients" / name
    return replace(
        config,
        ca_file=theirs / "ca.crt",
        cert_file=theirs / "client.crt",
        key_file=theirs / "client.key",
        token_file=theirs / "token",
    )
