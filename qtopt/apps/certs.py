"""Certificates and tokens: an authority, a server's, one for each client with its role; renewal, expiry, revocation.

Everything is in one directory; each folder below ``server`` and ``clients`` is what goes to one machine::

    authority/     ca.crt ca.key                      stays where it was made
    server/        ca.crt server.crt server.key tokens
    clients/arm-3/ ca.crt client.crt client.key token
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

import tyro
from cryptography import x509

from qtopt.apps.certificates import (
    Authority,
    alternative_names,
    host_name,
    make_authority,
    make_certificate,
    read_authority,
    read_certificate,
    write_private,
)
from qtopt.apps.process import say
from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.rpc.roles import Identity, Role, from_uri, make_identity, to_uri
from qtopt.rpc.tokens import TokenEntry, new_token, read_tokens, token_digest

_AUTHORITY_DAYS: Final = 3650.0
_SERVER: Final = ("server.crt", "server.key")
_CLIENT: Final = ("client.crt", "client.key")
_MOST_DAYS: Final = 36_500.0
_SOON_DAYS: Final = 30.0


@dataclass(frozen=True)
class Config:
    """Makes and renews what a server and its clients prove to each other who they are with; shows when it expires.

    Attributes:
        action: ``authority`` makes what signs all others, ``server`` a server's certificate, ``client`` a client's
            certificate and token, ``renew`` makes those anew that expire soon, ``revoke`` takes a client's token off
            the server's list, ``show`` lists everything with its expiry.
        directory: where everything is kept.
        name: with client and revoke, the client's, as ``arm-3``; with renew, the one to make anew whatever it has left.
        role: with client, what it may do.
        names: with server, every host name and IP address that clients call it by.
        days: how long a new certificate or token is good for.
        within_days: with renew, what has fewer days left.
    """

    __pydantic_config__ = STRICT

    action: Annotated[
        Literal["authority", "server", "client", "renew", "revoke", "show"],
        tyro.conf.Positional,
    ]
    directory: Path = Path("secrets")
    name: str = ""
    role: Literal["collector", "updater", "trainer", "evaluator", "viewer"] | None = None
    names: tuple[str, ...] = ()
    days: float = 365.0
    within_days: float = _SOON_DAYS

    def __post_init__(self) -> None:
        if self.action == "client" and self.role is None:
            raise ConfigError(f"certs client: found no role, expected --role with one of {', '.join(Role)}")
        if self.action == "server" and not self.names:
            raise ConfigError("certs server: found no --names, expected every name that clients call the server by")
        if not 0 < self.days <= _MOST_DAYS:
            raise ConfigError(f"certs: days is {self.days:g}, expected more than 0 and at most {_MOST_DAYS:g}")
        if self.action in ("client", "revoke") or (self.action == "renew" and self.name):
            make_identity(self.name, self.role or Role.VIEWER)


def main(config: Config) -> int:
    """Does what was asked; ``show`` returns 1 when something has expired."""
    keys = Keys(config.directory)
    if config.action == "authority":
        keys.make_authority()
    elif config.action == "server":
        keys.make_server([host_name(name) for name in config.names], config.days)
    elif config.action == "client":
        keys.refuse_known(config.name)
        keys.make_client(make_identity(config.name, config.role or ""), config.days)
    elif config.action == "revoke":
        say(f"{keys.revoke(config.name)} removed; the server refuses {config.name} when it has {keys.token_list}")
    elif config.action == "renew":
        if config.name:
            keys.renew_client(config.name, config.days)
        else:
            for what in keys.renew(config.within_days, config.days):
                say(f"renewed {what}")
    else:
        return _show(keys)
    say(f"{config.action}: done, in {config.directory}")
    return 0


class Keys:
    """The directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = directory / "authority"
        self._server = directory / "server"
        self._clients = directory / "clients"

    @property
    def token_list(self) -> Path:
        """The server's list of tokens."""
        return self._server / "tokens"

    def make_authority(self) -> None:
        """Makes the authority; raises ConfigError where one is, as everything that it signed would be worthless."""
        files = self._authority / "ca.crt", self._authority / "ca.key"
        if files[1].exists():
            raise ConfigError(
                f"{files[1]} exists; a new authority needs a new directory, and new files on every machine"
            )
        make_authority(*files, _AUTHORITY_DAYS)

    def make_server(self, names: list[x509.GeneralName], days: float) -> None:
        """Makes the server's certificate for ``names``, and an empty list of tokens where there is none."""
        self._make(self._server, _SERVER, "qtopt server", names, days)
        if not self.token_list.exists():
            self._write_tokens([])

    def refuse_known(self, name: str) -> None:
        """Raises ConfigError for a client that there is: new keys would lock it out until they are copied to it."""
        folder = self._clients / name
        if folder.exists() or name in [each.identity.name for each in self.tokens()]:
            raise ConfigError(
                f"there is a client {name} already ({folder}), and what it has would be refused from then on: "
                f"`qtopt certs renew --name {name}` makes its key and token anew, `qtopt certs revoke --name {name}` "
                "before this gives its name away, or choose another name"
            )

    def make_client(self, identity: Identity, days: float) -> None:
        """Makes a client's certificate and token; a token that it had stops to work."""
        folder = self._clients / identity.name
        name = x509.UniformResourceIdentifier(to_uri(identity))
        self._make(folder, _CLIENT, identity.name, [name], days)
        token = new_token()
        write_private(folder / "token", f"{token}\n".encode())
        entry = TokenEntry(identity, datetime.now(UTC) + timedelta(days=days), token_digest(token))
        self._write_tokens([each for each in self.tokens() if each.identity.name != identity.name] + [entry])

    def revoke(self, name: str) -> Path:
        """Takes a client off the server's list; raises ConfigError where it is not on it.

        Returns:
            where its key and token were.
        """
        revoked = self._listed(name)
        self._write_tokens([each for each in self.tokens() if each.identity != revoked])
        shutil.rmtree(self._clients / name, ignore_errors=True)
        return self._clients / name

    def renew_client(self, name: str, days: float) -> None:
        """Makes a client's certificate and token anew; raises ConfigError where it is not on the server's list."""
        self.make_client(self._listed(name), days)

    def renew(self, within_days: float, days: float) -> Iterator[str]:
        """Makes anew, with new keys and tokens, what has fewer than ``within_days`` left; yields what it was."""
        before = datetime.now(UTC) + timedelta(days=within_days)
        certificate = self._server / _SERVER[0]
        if certificate.exists() and (found := read_certificate(certificate)).not_valid_after_utc < before:
            self.make_server(alternative_names(found), days)
            yield str(certificate)
        listed = {each.identity: each.expires for each in self.tokens()}
        for certificate in self.client_certificates():
            found = read_certificate(certificate)
            identity = identity_of(found)
            if identity in listed and min(found.not_valid_after_utc, listed[identity]) < before:
                self.make_client(identity, days)
                yield str(certificate.parent)

    def _listed(self, name: str) -> Identity:
        known = {each.identity.name: each.identity for each in self.tokens()}
        if name not in known:
            raise ConfigError(
                f"{self.token_list}: found no token of {name}, expected a client's ({', '.join(known) or 'none'}); "
                "the server's certificate is made anew by qtopt certs server, or with all others by qtopt certs renew"
            )
        return known[name]

    def tokens(self) -> list[TokenEntry]:
        """Returns the server's list; empty where there is none."""
        return read_tokens(self.token_list) if self.token_list.exists() else []

    def certificates(self) -> list[Path]:
        """Returns all certificates that there are, the authority's first; raises ConfigError where there are none."""
        own = [self._authority / "ca.crt", self._server / _SERVER[0]]
        found = [path for path in own if path.exists()] + self.client_certificates()
        if not found:
            raise ConfigError(
                f"found no certificates in {self._directory}, expected some: begin with qtopt certs authority, or give "
                "the --directory where they are"
            )
        return found

    def client_certificates(self) -> list[Path]:
        """Returns the clients' certificates."""
        return sorted(self._clients.glob(f"*/{_CLIENT[0]}"))

    def _make(
        self, folder: Path, files: tuple[str, str], subject: str, names: list[x509.GeneralName], days: float
    ) -> None:
        authority: Authority = read_authority(self._authority / "ca.crt", self._authority / "ca.key")
        pair = folder / files[0], folder / files[1]
        make_certificate(authority, subject, names, pair, days, server=files is _SERVER)
        write_private(folder / "ca.crt", (self._authority / "ca.crt").read_bytes())

    def _write_tokens(self, entries: list[TokenEntry]) -> None:
        head = "# name role expiry sha256 - written by qtopt certs; copy to the server after every change\n"
        write_private(self.token_list, (head + "".join(f"{each.line()}\n" for each in entries)).encode())


def identity_of(certificate: x509.Certificate) -> Identity:
    """Returns the client that a certificate is of; raises ConfigError."""
    uris = [name.value for name in alternative_names(certificate) if isinstance(name, x509.UniformResourceIdentifier)]
    found = from_uri(uris[0]) if len(uris) == 1 else None
    if found is None:
        raise ConfigError(f"certificate of {certificate.subject.rfc4514_string()}: found no role, expected a client's")
    return found


def _show(keys: Keys) -> int:
    rows = [(str(path), read_certificate(path).not_valid_after_utc) for path in keys.certificates()]
    rows += [(f"token of {each.identity.role} {each.identity.name}", each.expires) for each in keys.tokens()]
    now = datetime.now(UTC)
    width = max(len(what) for what, _ in rows)
    for what, expires in rows:
        left = (expires - now).total_seconds() / 86_400
        state = "EXPIRED" if left < 0 else f"{left:.0f} days left{', renew soon' if left < _SOON_DAYS else ''}"
        say(f"{what:<{width}}  {expires:%Y-%m-%d}  {state}")
    return int(any(expires < now for _, expires in rows))
