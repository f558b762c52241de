"""Our errors to gRPC status and back."""

import grpc
import pytest

from qtopt import errors
from qtopt.rpc.status import from_status, log_and_hide, to_status, translate_errors, unanswered


class Failure(grpc.RpcError):
    """A failed call as grpc raises it."""

    def __init__(self, code, details, metadata=()):
        super().__init__(details)
        self._parts = code, details, metadata

    def code(self):
        return self._parts[0]

    def details(self):
        return self._parts[1]

    def trailing_metadata(self):
        return self._parts[2]


def all_errors(kind=errors.QtOptError):
    ours = (child for child in kind.__subclasses__() if child.__module__ == errors.__name__)
    return [kind, *(each for child in ours for each in all_errors(child))]


@pytest.mark.parametrize("kind", all_errors())
def test_each_of_our_errors_comes_back_as_itself_with_its_message(kind):
    code, details, metadata = to_status(kind("found 3, expected 4: do this"))
    back = from_status(Failure(code, details, metadata), "call")
    assert type(back) is kind
    assert str(back) == "found 3, expected 4: do this"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ServerUnavailable, grpc.StatusCode.UNAVAILABLE),
        (errors.SchemaMismatch, grpc.StatusCode.FAILED_PRECONDITION),
        (errors.EpisodeConflict, grpc.StatusCode.ALREADY_EXISTS),
        (errors.StoreFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.CorruptEpisode, grpc.StatusCode.DATA_LOSS),
    ],
)
def test_status_codes_that_other_clients_see(kind, code):
    assert to_status(kind("x"))[0] is code


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", errors.ServerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.ServerUnavailable),
        (grpc.StatusCode.CANCELLED, "Channel closed!", errors.ServerUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", errors.ServerUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", errors.RemoteError),
        (grpc.StatusCode.UNAUTHENTICATED, "no token", errors.RemoteError),
        (grpc.StatusCode.INTERNAL, "cannot parse", errors.RemoteError),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", errors.RemoteError),
    ],
)
def test_what_the_transport_itself_says(code, details, kind):
    with pytest.raises(errors.QtOptError) as caught, translate_errors("append at host:1"):
        raise Failure(code, details)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("append at host:1: ")
    assert isinstance(caught.value.__cause__, Failure)


def test_an_unknown_kind_of_our_errors_is_a_remote_error():
    failure = Failure(grpc.StatusCode.ABORTED, "newer", (("qtopt-error", "ErrorOfNextYear"),))
    assert type(from_status(failure, "call")) is errors.RemoteError


def test_a_closed_channel_is_a_remote_error_and_other_value_errors_pass():
    with pytest.raises(errors.RemoteError, match="closed; connect again"), translate_errors("call"):
        raise ValueError("Cannot invoke RPC on closed channel!")
    with pytest.raises(ValueError, match="other"), translate_errors("call"):
        raise ValueError("other")


def test_unforeseen_errors_are_logged_here_and_leave_without_their_text(caplog):
    with pytest.raises(errors.RemoteError) as caught, log_and_hide("call"):
        raise KeyError("secret")
    assert "secret" not in str(caught.value)
    assert "KeyError" in str(caught.value)
    assert "secret" in caplog.text


def test_only_calls_that_found_no_server_are_made_again():
    assert unanswered(Failure(grpc.StatusCode.UNAVAILABLE, "connection refused"))
    assert unanswered(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"))
    assert not unanswered(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "Sent message larger than max (9 vs. 4)"))
    assert not unanswered(Failure(grpc.StatusCode.DEADLINE_EXCEEDED, ""))
    assert not unanswered(Failure(*to_status(errors.ServerUnavailable("no data yet"))))
