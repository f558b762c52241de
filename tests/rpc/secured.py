"""Servers and clients with TLS, certificates and tokens, of the keys that the fixture ``keys`` made."""

import json

from qtopt.apps.certificates import host_name
from qtopt.rpc import Audit, ClientConfig, ServerConfig

NAMES = [host_name("localhost"), host_name("127.0.0.1")]
_OPEN = {}


def listening(tmp_path, *, certificates=True, tokens=True, **given):
    own = tmp_path / "keys" / "server"
    return ServerConfig(
        host="0.0.0.0",
        port=0,
        cert_file=own / "server.crt",
        key_file=own / "server.key",
        client_ca_file=own / "ca.crt" if certificates else None,
        token_file=own / "tokens" if tokens else None,
        **given,
    )


def client_of(server, tmp_path, role, *, certificates=True, tokens=True):
    own = tmp_path / "keys" / "clients" / f"a-{role}"
    return ClientConfig(
        address=f"127.0.0.1:{server.port}",
        ca_file=own / "ca.crt",
        cert_file=own / "client.crt" if certificates else None,
        key_file=own / "client.key" if certificates else None,
        token_file=own / "token" if tokens else None,
        connect_timeout_s=5.0,
    )


def audit_in(tmp_path):
    _OPEN[tmp_path] = Audit(tmp_path / "audit.jsonl")
    return _OPEN[tmp_path]


def written(tmp_path):
    if tmp_path in _OPEN:
        _OPEN[tmp_path].flush()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    return [line for line in lines if line.get("what") != "connection"]  # which a slow machine may have to try again
