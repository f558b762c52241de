"""Our errors on the wire, mapped once: ``qtopt.errors`` to gRPC status and back.

An answer that carries one of our errors has a status code that any gRPC client understands, the message as its details,
and the class's name in the trailing metadata ``qtopt-error``, since several classes share a code and gRPC itself uses
RESOURCE_EXHAUSTED for what has nothing to do with disks. A traceback never leaves the process.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc
import grpc.aio

from qtopt import errors
from qtopt.errors import QtOptError, RemoteError, ServerUnavailable

log = logging.getLogger(__name__)

ERROR_KEY: Final = "qtopt-error"
"""Trailing metadata that holds the name of the error's class."""

_CODES: Final[dict[type[QtOptError], grpc.StatusCode]] = {
    errors.ServerUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.SchemaMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EpisodeConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.StoreFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.CorruptEpisode: grpc.StatusCode.DATA_LOSS,
    errors.ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CheckpointError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownEpisode: grpc.StatusCode.NOT_FOUND,
    errors.StoreError: grpc.StatusCode.ABORTED,
    errors.RobotError: grpc.StatusCode.ABORTED,
    errors.NotReady: grpc.StatusCode.ABORTED,
    errors.UnkeptLock: grpc.StatusCode.ABORTED,
    errors.StaleFrame: grpc.StatusCode.ABORTED,
    errors.FrozenFrame: grpc.StatusCode.ABORTED,
    errors.ProcessFailed: grpc.StatusCode.ABORTED,
    errors.NotAuthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.AccessDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.RemoteError: grpc.StatusCode.ABORTED,
    errors.QtOptError: grpc.StatusCode.ABORTED,
}
_CLASSES: Final = {kind.__name__: kind for kind in _CODES}
_MOST_DETAILS: Final = 600  # characters; each may take 12 bytes on the wire
_PATH: Final = re.compile(r"(?<![\w.:/])/(?:[^\s/'\"`,;:()\[\]]+/)+([^\s/'\"`,;:()\[\]]*)")
_MARKED: Final = re.compile(r"\b(\d{8})-[0-9a-f]{32}\b")
"""The name of a file of the landing log, with the mark that no client may know."""
_TOO_LARGE: Final = "larger than max"
_UNANSWERED: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


def to_status(error: QtOptError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """Returns the status code, the details and the trailing metadata that carry ``error``.

    Of absolute paths only the last part travels: where a server keeps its files is nobody else's business; and of the
    landing log's files not the marks, with which records could be forged. A message
    that repeats what a client sent may be of any length; gRPC carries some 8 KB of it and otherwise nothing.
    """
    kind = next(base for base in type(error).__mro__ if base in _CODES)
    text = _MARKED.sub(r"\1", _PATH.sub(r"\1", str(error)[: 4 * _MOST_DETAILS]))
    details = text if len(text) <= _MOST_DETAILS else f"{text[:_MOST_DETAILS]}..."
    return _CODES[kind], details, ((ERROR_KEY, kind.__name__),)


def from_status(error: grpc.RpcError, what: str) -> QtOptError:
    """Returns our error for a failed call; ``what`` names the call and the address."""
    code, details, kind = _code(error), _details(error), _answered(error)
    if kind is not None:
        return kind(details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        return RemoteError(f"{what}: {details}: make fewer or smaller arrays travel in one call")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServerUnavailable(f"{what}: no answer within the deadline: see whether the server runs, or try again")
    if code in _UNANSWERED:
        return ServerUnavailable(f"{what}: nobody answered ({details}): see whether the server runs, or try again")
    return RemoteError(f"{what}: {code.name}: {details}: see the server's log")


def unanswered(error: grpc.RpcError) -> bool:
    """Whether a call failed on its way with time left: it found no server, or the server had no room for it."""
    lost = _code(error) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    return lost and _answered(error) is None and _TOO_LARGE not in _details(error)


def _details(error: grpc.RpcError) -> str:
    return str(getattr(error, "details", lambda: "")() or "")


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    code = getattr(error, "code", lambda: None)()
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def _answered(error: grpc.RpcError) -> type[QtOptError] | None:
    """Returns the class of our error that the server answered with; None where the transport failed."""
    for key, value in getattr(error, "trailing_metadata", lambda: ())() or ():
        if key == ERROR_KEY:
            return _CLASSES.get(value if isinstance(value, str) else value.decode())
    return None


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Lets failed gRPC calls in its body leave as errors of ``qtopt.errors``; ``what`` names call and address."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_status(error, what) from error
    except ValueError as error:
        if "closed channel" not in str(error):
            raise
        raise RemoteError(f"{what}: the client was closed; connect again") from error


@contextmanager
def log_and_hide(what: str) -> Iterator[None]:
    """Logs errors that nobody raised on purpose in its body; they leave as a RemoteError without details."""
    try:
        yield
    except (QtOptError, grpc.aio.AbortError):
        raise
    except Exception as error:
        log.exception("%s failed", what)
        raise RemoteError(f"{what}: internal error ({type(error).__name__}): see the server's log") from error
