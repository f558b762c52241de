"""What attackers speak through: bare gRPC with the keys of one client or another, and what they expect to be told."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

_DEADLINE_S: Final = 60.0


class GotThrough(Exception):
    """The server did what an attacker wanted."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where to attack.

    Attributes:
        port: the server's, on this machine.
        keys: folders of clients that it knows, and of others, by name.
        image_px: height and width of its images.
        patience_s: after which it should have hung up on who says nothing [s].
    """

    port: int
    keys: Path
    image_px: int
    patience_s: float


@contextlib.contextmanager
def channel(site: Site, folder: str, *, certified: bool = True, token_of: str = "") -> Iterator["Caller"]:
    """Yields what calls with the certificate of one folder and the token of the same or another."""
    root = site.keys / folder
    pair = (root / "client.key").read_bytes(), (root / "client.crt").read_bytes()
    authority = (site.keys / "good" / "ca.crt").read_bytes()
    credentials = grpc.ssl_channel_credentials(authority, *(pair if certified else (None, None)))
    token = (site.keys / (token_of or folder) / "token").read_text().strip()
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    options += [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]  # what is not read does not come
    with grpc.secure_channel(f"127.0.0.1:{site.port}", credentials, options) as channel:
        yield Caller(channel, (("authorization", f"Bearer {token}"),) if token else ())


class Caller:
    """Calls over one connection, with one token."""

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._channel, self._metadata = channel, metadata

    def refused(self, method: str, request: bytes, *codes: grpc.StatusCode, within_s: float = _DEADLINE_S) -> str:
        """Returns with which words a call was refused; raises GotThrough when it was not, or said too much."""
        try:
            self._channel.unary_unary(method, _as_it_is, _as_it_is)(request, timeout=within_s, metadata=self._metadata)
        except grpc.RpcError as error:
            return _checked(error, codes)
        raise GotThrough(f"{method} was answered")

    def refused_at_once(self, method: str, request: bytes, count: int, *codes: grpc.StatusCode) -> str:
        """Makes ``count`` calls at a time; returns what ``refused`` does, of the last of them."""
        call = self._channel.unary_unary(method, _as_it_is, _as_it_is)
        calls = [call.future(request, timeout=_DEADLINE_S, metadata=self._metadata) for _ in range(count)]
        said = ""
        for each in calls:
            error = each.exception()
            if error is None:
                raise GotThrough(f"{method} was answered")
            said = _checked(error, codes)
        return said

    def streams(self, method: str, count: int, request: bytes = b"") -> list[grpc.Call]:
        """Opens streams of answers, which nobody reads."""
        open_one = self._channel.unary_stream(method, _as_it_is, _as_it_is)
        return [open_one(request, timeout=_DEADLINE_S, metadata=self._metadata) for _ in range(count)]

    def most_end(self, streams: list[grpc.Call], but: int) -> set[str]:
        """Waits until all but some have been refused; returns with which words."""
        deadline = time.monotonic() + _DEADLINE_S / 2
        while (held := sum(stream.is_active() for stream in streams)) > but:
            if time.monotonic() > deadline:
                raise GotThrough(f"{held} of {len(streams)} streams were open, expected at most {but}")
            time.sleep(0.1)
        return {_checked(stream, AWAY) for stream in streams if not stream.is_active()}

    def stalled(self, method: str, count: int = 1, meanwhile: Callable[[], object] = lambda: None) -> str:
        """Opens calls and sends nothing; returns with which words the first was ended, after ``meanwhile``."""

        def nothing() -> Iterator[bytes]:
            time.sleep(_DEADLINE_S)
            yield b""

        begin = self._channel.stream_unary(method, _as_it_is, _as_it_is)
        calls = [begin.future(nothing(), timeout=_DEADLINE_S, metadata=self._metadata) for _ in range(count)]
        meanwhile()
        error = calls[0].exception()  # those that wait for a place follow one by one, or with the connection
        if error is None:
            raise GotThrough(f"{method} was answered")
        return _checked(error, AWAY)


def _as_it_is(data: bytes) -> bytes:
    return data


def _checked(error: object, codes: tuple[grpc.StatusCode, ...]) -> str:
    if not isinstance(error, grpc.Call):
        raise GotThrough(f"ended with {type(error).__name__} ({error}), expected a status")
    code, details = error.code(), str(error.details() or "")
    if code not in codes:
        raise GotThrough(f"refused with {code.name} ({details}), expected {' or '.join(each.name for each in codes)}")
    inside = [word for word in ("Traceback", "/home", "/root", ".py", "site-packages") if word in details]
    if inside:
        raise GotThrough(f"the refusal tells of the server's inside: {details}")
    return f"{code.name}: {details[:160]}"


AWAY: Final = (grpc.StatusCode.UNAVAILABLE,)
WHO: Final = (grpc.StatusCode.UNAUTHENTICATED,)
ROLE: Final = (grpc.StatusCode.PERMISSION_DENIED,)
BAD: Final = (grpc.StatusCode.FAILED_PRECONDITION,)
WEIGHTS: Final = (grpc.StatusCode.INVALID_ARGUMENT,)
