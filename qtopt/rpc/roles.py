"""Who may call what: one table, and the identity that it is asked about.

A method that is served and not in the table is refused to everybody on a server that asks who calls.
"""

import enum
import re
from dataclasses import dataclass
from typing import Final

from qtopt.errors import AccessDenied, ConfigError


class Role(enum.StrEnum):
    """What a client is there for."""

    COLLECTOR = "collector"
    UPDATER = "updater"
    TRAINER = "trainer"
    EVALUATOR = "evaluator"
    VIEWER = "viewer"


_OPEN: Final = frozenset[Role | None]([None])
_EVERYBODY: Final = frozenset[Role | None](Role)
_WORKERS: Final = _EVERYBODY - {Role.VIEWER}
_COLLECTOR: Final = frozenset[Role | None]([Role.COLLECTOR])
_UPDATER: Final = frozenset[Role | None]([Role.UPDATER])
_TRAINER: Final = frozenset[Role | None]([Role.TRAINER])
_VIEWER: Final = frozenset[Role | None]([Role.VIEWER])
_ACTING: Final = frozenset[Role | None]([Role.COLLECTOR, Role.EVALUATOR])

ROLES: Final[dict[str, frozenset[Role | None]]] = {
    "/qtopt.v1.ReplayService/Handshake": _EVERYBODY,
    "/qtopt.v1.ReplayService/AppendEpisode": _COLLECTOR,
    "/qtopt.v1.ReplayService/SampleTransitions": _UPDATER,
    "/qtopt.v1.ReplayService/PutTargets": _UPDATER,
    "/qtopt.v1.ReplayService/SampleLabelled": _TRAINER,
    "/qtopt.v1.ReplayService/GetStats": _VIEWER,
    "/qtopt.v1.ModelService/Publish": _TRAINER,
    "/qtopt.v1.ModelService/GetLatest": _WORKERS,
    "/qtopt.v1.MonitorService/Report": _WORKERS,
    "/qtopt.v1.MonitorService/GetFigures": _VIEWER,
    "/qtopt.v1.PolicyService/BeginEpisode": _ACTING,
    "/qtopt.v1.PolicyService/SelectAction": _ACTING,
    "/grpc.health.v1.Health/Check": _OPEN,
    "/grpc.health.v1.Health/List": _OPEN,
    "/grpc.health.v1.Health/Watch": _OPEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _EVERYBODY,
}
"""The roles that may call each method. None stands for a client that has not said who it is: health tells nothing."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCHEME: Final = "qtopt://"


@dataclass(frozen=True, slots=True)
class Identity:
    """A client that has proved who it is.

    Attributes:
        name: of the machine or the role on it, as ``arm-3``.
        role: what it may do; None on a server that asks nobody, where everything is allowed.
    """

    name: str
    role: Role | None


def make_identity(name: str, role: str) -> Identity:
    """Returns an identity; raises ConfigError for a name or role that cannot be one."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name is {name[:80]!r}, expected 1 to 64 letters, digits, dots, dashes and underscores")
    if role not in list(Role):
        raise ConfigError(f"role is {role[:80]!r}, expected one of {', '.join(Role)}")
    return Identity(name, Role(role))


def to_uri(identity: Identity) -> str:
    """Returns the identity as a certificate's subject alternative name holds it: ``qtopt://collector/arm-3``."""
    return f"{_SCHEME}{identity.role}/{identity.name}"


def from_uri(uri: str) -> Identity | None:
    """Returns the identity that a subject alternative name holds; None where it is something else."""
    role, slash, name = uri.removeprefix(_SCHEME).partition("/")
    if not (uri.startswith(_SCHEME) and slash):
        return None
    try:
        return make_identity(name, role)
    except ConfigError:
        return None


def is_open(method: str) -> bool:
    """Whether a method may be called without saying who calls."""
    return None in ROLES.get(method, ())


def is_general(method: str) -> bool:
    """Whether a method is none of this project's: health, reflection, or one that there is not."""
    return method not in ROLES or not method.startswith("/qtopt.")


def check_role(identity: Identity, method: str) -> None:
    """Raises AccessDenied unless the table lets the identity's role call ``method``."""
    allowed = ROLES.get(method, frozenset())
    if identity.role is not None and identity.role not in allowed and None not in allowed:
        wanted = " or ".join(sorted(str(role) for role in allowed)) or "nobody"
        raise AccessDenied(
            f"{identity.name} is a {identity.role}, and {method.rpartition('/')[2]} is for {wanted}: give this client "
            "the certificate and token of that role"
        )
