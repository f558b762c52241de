"""Who makes the call under way, for whatever serves it: set by the gate, one for each call's task."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from qtopt.rpc.roles import Identity

ANYBODY: Final = Identity("anybody", None)
"""The client of a server that asks nobody who they are."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and whose share of the server it takes.

    Attributes:
        identity: ANYBODY on a server that asks nobody; None for a stranger, who has not said and need not, see
            ``roles.is_open``.
        account: the same for all calls that share one client's limits and turns, whatever connections they come over.
    """

    identity: Identity | None
    account: str


_CALLER: Final = ContextVar[Caller]("caller")


def current_caller() -> Caller:
    """Returns who makes the call that is being served."""
    return _CALLER.get()


def set_caller(caller: Caller) -> None:
    """Says who makes the call that this task serves."""
    _CALLER.set(caller)
