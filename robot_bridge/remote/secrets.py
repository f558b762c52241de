"""The bearer token of the remote-arm protocol: from a file or the environment, never from a cell file."""

import ipaddress
import os
from pathlib import Path
from typing import Final

from qtopt.errors import ConfigError

MIN_TOKEN_LENGTH: Final = 24
TOKEN_VARIABLE: Final = "ROBOT_ARM_TOKEN"


def read_token(token_file: Path | None) -> str:
    """Returns the token in ``token_file``, or without one in the environment variable ``ROBOT_ARM_TOKEN``.

    Raises:
        ConfigError: there is none, or it is not one line of at least 24 printable characters without spaces.
    """
    if token_file is None:
        where, token = f"the environment variable {TOKEN_VARIABLE}", os.environ.get(TOKEN_VARIABLE, "")
    else:
        where = f"the token file {token_file}"
        try:
            token = token_file.read_text("utf-8", "replace")
        except OSError as error:
            raise ConfigError(f"{where} cannot be read: {error}") from error
    token = token.strip()
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{where} holds {len(token)} characters, expected one line of at least {MIN_TOKEN_LENGTH} printable "
            "characters without spaces; make one with: openssl rand -hex 24"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
