"""What a server counts: calls by method and status, how long they took, episodes by robot, whether services serve."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from qtopt.errors import AccessDenied, NotAuthenticated, QtOptError
from qtopt.rpc.gen import model_pb2, monitor_pb2, policy_pb2, replay_pb2
from qtopt.rpc.interceptors import Context, Continuation, Handler, Interceptor, behaviour_of, run, with_behaviour
from qtopt.rpc.limits import Crowded, Overdrawn
from qtopt.types import Episode, Outcome

MAX_ROBOTS: Final = 256
"""Robots counted by name; what comes from further ones is counted together, lest clients fill the memory with names."""
OTHERS: Final = "others"

_APPEND: Final = "ReplayService/AppendEpisode"
_FILES: Final = (model_pb2, monitor_pb2, policy_pb2, replay_pb2)
_METHODS: Final = {
    f"/{service.full_name}/{method.name}": f"{service.name}/{method.name}"
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
_REFUSED: Final = frozenset(
    (
        *("UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"),
        *("ALREADY_EXISTS", "DATA_LOSS", "UNIMPLEMENTED", "ABORTED"),
    )
)
_REASONS: Final[dict[type[QtOptError], str]] = {
    NotAuthenticated: "identity",
    AccessDenied: "role",
    Crowded: "crowd",
    Overdrawn: "limits",
}
"""Why the gate refuses calls, before anybody looks at what is in them."""


class ServerMetrics:
    """Counters of one server in a Prometheus registry of their own; used by any number of threads.

    Attributes:
        registry: holds them all.
    """

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self._calls = Counter("qtopt_calls", "Calls answered", ["method", "code"], registry=own)
        self._seconds = Histogram(
            "qtopt_call_seconds", "Time to the answer", ["method"], buckets=_BUCKETS_S, registry=own
        )
        self._stored = Counter("qtopt_episodes_stored", "New episodes stored", ["robot", "outcome"], registry=own)
        self._serving = Gauge(
            "qtopt_serving", "Whether a service serves, as health tells it", ["service"], registry=own
        )
        self._refusals = Counter("qtopt_refusals", "Calls refused unread, by reason", ["reason"], registry=own)
        for reason in _REASONS.values():
            self._refusals.labels(reason)
        self._turned_away = Counter("qtopt_connections_refused", "Connections that ended without a call", registry=own)
        self._left_aside = Gauge(
            "qtopt_secrets_left_aside",
            "Whether changed files are no good and not in use",
            ["what"],
            registry=own,
        )
        for what in ("tokens", "certificates"):
            self._left_aside.labels(what)
        self._robots: set[str] = set()

    def answered(self, method: str, code: str, seconds: float | None) -> None:
        """Counts a call: its full method name, the name of its status and the time it took [s]; None for a stream's."""
        name = _METHODS.get(method, OTHERS)
        self._calls.labels(name, code).inc()
        if seconds is not None:
            self._seconds.labels(name).observe(seconds)

    def refused(self, error: QtOptError) -> None:
        """Counts a call that was refused for who made it or for how many of them there were; no other."""
        reason = next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), None)
        if reason is not None:
            self._refusals.labels(reason).inc()

    def turned_away(self, connections: int) -> None:
        """Counts connections that ended without a call."""
        self._turned_away.inc(connections)

    def watch(self, what: str, left_aside: Callable[[], bool]) -> None:
        """Shows from now on whether ``tokens`` or ``certificates`` are left aside, asked whenever somebody looks."""
        self._left_aside.labels(what).set_function(left_aside)

    def expect(self, robots: Iterable[str]) -> None:
        """Begins at 0 for robots that are known from before, so that one that does not come back is missed."""
        for robot in robots:
            self._known(robot)

    def stored(self, episode: Episode) -> None:
        """Counts an episode that was new."""
        self._stored.labels(self._known(episode.collector), episode.outcome.name.lower()).inc()

    def _known(self, robot: str) -> str:
        """Returns the name to count a robot by; its counters are there from now on."""
        robot = robot[:64]
        if robot not in self._robots:
            robot = robot if len(self._robots) < MAX_ROBOTS else OTHERS
            self._robots.add(robot)
            for outcome in Outcome:
                self._stored.labels(robot, outcome.name.lower())
        return robot

    def serving(self, services: Mapping[str, bool]) -> None:
        """Takes which services serve."""
        for name, serves in services.items():
            self._serving.labels(name or "all").set(serves)

    def figures(self) -> dict[str, float]:
        """Returns calls refused so far, and mean and 99th percentile of the time to acknowledge an episode [s]."""
        refused = sum(
            sample.value
            for metric in self._calls.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.labels["code"] in _REFUSED
        )
        figures = {"calls_refused": float(refused)}
        appends = [
            sample
            for metric in self._seconds.collect()
            for sample in metric.samples
            if sample.labels["method"] == _APPEND
        ]
        count = sum(sample.value for sample in appends if sample.name.endswith("_count"))
        if count:
            total_s = sum(sample.value for sample in appends if sample.name.endswith("_sum"))
            within = ((float(sample.labels["le"]), sample.value) for sample in appends if "le" in sample.labels)
            late_s = next(limit for limit, below in within if below >= 0.99 * count)
            figures |= {"append_mean_s": total_s / count, "append_p99_below_s": min(late_s, 1e6)}
        return figures


class CountingInterceptor(Interceptor):
    """Counts every call, those that other interceptors refuse included; it goes before them."""

    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Returns the handler, wrapped."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        assert handler is not None  # the gate behind has one for every method, those that there are not included
        inner = behaviour_of(handler)

        async def answer(request: Any, context: Context) -> Any:
            begun_s = time.perf_counter()
            code = "CANCELLED"
            try:
                response = await run(inner, request, context)
                code = "OK"
                return response
            except grpc.aio.AbortError:
                code = _name(context.code())
                raise
            finally:
                took_s = time.perf_counter() - begun_s
                self._metrics.answered(method, code, None if handler.response_streaming else took_s)

        return with_behaviour(handler, answer)


def _name(code: Any) -> str:
    return code.name if isinstance(code, grpc.StatusCode) else _CODES.get(code, "UNKNOWN")
