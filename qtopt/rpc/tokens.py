"""Bearer tokens: the server's list, which holds no token but its hash, and the client's own.

A line of the list is ``name role expiry hash``, as ``arm-3 collector 2027-01-31T00:00:00+00:00 <64 hexadecimal
digits>``. Tokens are 256 random bits, so a plain SHA-256 cannot be searched.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from qtopt.errors import ConfigError
from qtopt.rpc.roles import Identity, make_identity
from qtopt.rpc.settings import MIN_TOKEN_LENGTH, read_file

_HASH_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """A token that the server knows.

    Attributes:
        identity: who it speaks for.
        expires: when it stops to.
        digest: SHA-256 of the token, 64 hexadecimal digits.
    """

    identity: Identity
    expires: datetime
    digest: str

    def line(self) -> str:
        """Returns the entry as a line of the list."""
        return f"{self.identity.name} {self.identity.role} {self.expires.isoformat(timespec='seconds')} {self.digest}"


def new_token() -> str:
    """Returns a token of 256 random bits."""
    return secrets.token_hex(32)


def token_digest(token: str) -> str:
    """Returns the SHA-256 of a token as 64 hexadecimal digits."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_token(path: Path) -> str:
    """Returns the token in a client's file.

    Raises:
        ConfigError: it is not one line of enough printable characters.
    """
    token = read_file(path, "token file").decode("utf-8", "replace").strip()
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"token file {path} holds {len(token)} characters, expected one line of at least {MIN_TOKEN_LENGTH} "
            "printable ASCII ones without spaces, as `qtopt certs client` makes"
        )
    return token


def read_tokens(path: Path) -> list[TokenEntry]:
    """Returns the server's list; raises ConfigError naming the line that is none."""
    lines = read_file(path, "token list").decode("utf-8", "replace").splitlines()
    return [
        _parse(line, f"token list {path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    ]


def find_token(entries: Iterable[TokenEntry], token: str) -> TokenEntry | None:
    """Returns the entry of a token; takes as long for a wrong one, whatever it shares with a right one."""
    digest, found = token_digest(token), None
    for entry in entries:
        if hmac.compare_digest(entry.digest, digest):
            found = entry
    return found


def _parse(line: str, where: str) -> TokenEntry:
    try:
        name, role, expiry, digest = line.split()
        expires = datetime.fromisoformat(expiry)
        int(digest, 16)
    except ValueError:
        raise ConfigError(
            f"{where}: expected `name role expiry hash`, found something else; make lines with `qtopt certs client`"
        ) from None
    if len(digest) != _HASH_DIGITS:
        raise ConfigError(f"{where}: the hash has {len(digest)} digits, expected {_HASH_DIGITS}")
    if expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    return TokenEntry(make_identity(name, role), expires, digest.lower())
