"""Who calls: by client certificate, by token, or by both."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from qtopt.errors import NotAuthenticated
from qtopt.rpc.callers import ANYBODY, Caller
from qtopt.rpc.metrics import ServerMetrics
from qtopt.rpc.peers import network_of
from qtopt.rpc.roles import Identity, from_uri, is_general, is_open
from qtopt.rpc.settings import ServerConfig
from qtopt.rpc.tokens import find_token, read_tokens
from qtopt.rpc.watched import Watched


class Access:
    """Tells who calls, by client certificate, by token, or by both, which then have to name the same.

    Args:
        config: whom to ask what, and the list of tokens.
        metrics: shows whether a changed list is left aside.

    Raises:
        ConfigError: the list of tokens is no good.
    """

    def __init__(self, config: ServerConfig, metrics: ServerMetrics) -> None:
        self._by_certificate = config.client_ca_file is not None
        path = config.token_file
        self._tokens = None if path is None else Watched([path], lambda: read_tokens(path))
        if self._tokens is not None:
            metrics.watch("tokens", self._tokens.left_aside)

    def caller(
        self, method: str, metadata: Mapping[str, str], auth: Mapping[str, Iterable[bytes]], peer: str
    ) -> Caller:
        """Returns who calls ``method`` from the address ``peer``.

        Who need not say who they are has the account of their host or IPv6 network, not of a connection, which anybody
        can make anew.

        Raises:
            NotAuthenticated: it does not say who it is, and the method is for those alone who do.
        """
        try:
            found: Identity | None = self.identify(metadata, auth)
        except NotAuthenticated:
            if not is_open(method):
                raise
            found = self.certified(auth)
        if found is None or found is ANYBODY:
            host = f"host {network_of(peer)}"
            return Caller(found, host if found is None or is_general(method) else peer)
        return Caller(found, f"{found.role} {found.name}")

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
