"""A role's figures for Prometheus: the same that it reports to the live table, under the names of ``_TABLE``."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from qtopt import __version__
from qtopt.apps.process import logger
from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.rpc.settings import is_loopback, join_address

Figures = Callable[[], Mapping[str, float]]
_TEXT_END: Final = ("_ms", "_s")


@dataclass(frozen=True)
class MetricsConfig:
    """Where a process shows its figures to Prometheus, over plain HTTP.

    Attributes:
        port: 0 lets the system choose; without one nothing listens.
        host: an IP address or ``localhost``.
        allow_remote: listen beyond loopback: whoever reaches the port reads every figure, robots' names among them.
    """

    __pydantic_config__ = STRICT

    port: int | None = None
    host: str = "127.0.0.1"
    allow_remote: bool = False

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ConfigError(f"metrics port is {self.port}, expected 0 to 65535 (0 chooses a free one)")
        if self.host.startswith("unix:"):
            raise ConfigError(f"metrics host is {self.host!r}, expected an IP address or localhost")
        if not (is_loopback(self.host) or self.allow_remote):
            raise ConfigError(
                f"refusing to show metrics on {self.host}, which other machines reach: there is no password before "
                "them; add --metrics.allow-remote where only Prometheus reaches the port, or listen on 127.0.0.1"
            )


@dataclass(frozen=True)
class _Row:
    """How a figure is exported.

    Attributes:
        figure: its name; ``{label}`` stands for any text, which becomes the value of that label.
        name: in Prometheus, in base units; empty: not at all, since Prometheus derives it from others.
        text: what it is.
        counts: whether it only grows while the process lives.
    """

    figure: str
    name: str
    text: str
    counts: bool = False


_VERSION: Final = "qtopt_policy_version", "Version of the newest networks held or published"
_EVERY: Final = (
    _Row("policy_version", *_VERSION),
    _Row("policy_age_s", "qtopt_policy_age_seconds", "Time since these networks were taken or published"),
    _Row("turn_age_s", "qtopt_turn_age_seconds", "Time since the role's loop did something"),
    _Row("disk_free_bytes", "qtopt_disk_free_bytes", "Room left where the role keeps its files"),
    _Row("disk_bytes", "qtopt_disk_bytes", "Size of that disk"),
)
_TABLE: Final[Mapping[str, tuple[_Row, ...]]] = {
    "collector": (
        _Row("episodes", "", "the sum over outcomes"),
        _Row("outcome_{outcome}", "qtopt_episodes", "Episodes finished", counts=True),
        _Row("spooled", "qtopt_spool_episodes", "Episodes that wait on the collector's disk"),
        _Row("set_aside", "qtopt_spool_set_aside_episodes", "Episodes in quarantine there: they are not delivered"),
        _Row("success_recent", "qtopt_success_ratio", "Success of the last 200 episodes"),
        _Row("success_{behaviour}", "qtopt_behaviour_success_ratio", "Success of the last 200 episodes of each actor"),
        _Row("share_{part}", "qtopt_time_ratio", "Where the last minute went"),
    ),
    "updater": (
        _Row("labels", "qtopt_labels_made", "Labels computed", counts=True),
        _Row("model_version", *_VERSION),
        _Row("share_waiting", "qtopt_waiting_ratio", "Share of the time spent waiting for the server"),
    ),
    "trainer": (
        _Row("step", "qtopt_gradient_steps", "Gradient steps, those before a resume included", counts=True),
        _Row("loss", "qtopt_loss", "Mean loss of the last 100 steps"),
        _Row("label_age_s", "qtopt_trained_label_age_seconds", "Mean age of the labels learned from"),
        _Row("label_lag", "qtopt_trained_label_lag_versions", "How many versions labels are behind, in the mean"),
        _Row("wait_ms", "qtopt_batch_wait_seconds", "Mean wait for a batch"),
        _Row("step_ms", "qtopt_gradient_step_seconds", "Mean time of a gradient step"),
        _Row("published_version", *_VERSION),
    ),
    "evaluator": (
        _Row("evaluations", "qtopt_evaluations", "Evaluations done", counts=True),
        _Row("success_{policy}", "qtopt_evaluation_success_ratio", "Success in the newest evaluation"),
    ),
    "server": (
        _Row("episodes", "qtopt_store_episodes", "Episodes that the store has, quarantined ones included"),
        _Row("quarantined", "qtopt_store_quarantined", "Of these not served: damaged, some of them stored again since"),
        _Row("labels_put", "qtopt_labels_put", "Labels taken from updaters", counts=True),
        _Row("labels_sampled", "qtopt_labels_sampled", "Labels given to trainers", counts=True),
        _Row("labels_dropped", "qtopt_labels_dropped", "Labels of transitions that are gone", counts=True),
        _Row("label_age_{percentile}_s", "qtopt_label_age_seconds", "Age of the labels held"),
        _Row("waiting_{side}", "qtopt_limiter_waiting_calls", "Calls that the limiter holds back"),
        _Row("calls_inside_{kind}", "qtopt_calls_inside", "Calls that run or wait for a thread"),
        _Row("audit_lines_waiting", "qtopt_audit_waiting_lines", "Lines of the audit log that wait for its disk"),
        _Row("audit_lines_lost", "qtopt_audit_lost_lines", "Lines that its disk did not take", counts=True),
        _Row("calls_refused", "", "qtopt_calls_total tells it by status"),
        _Row("append_{statistic}_s", "", "qtopt_call_seconds tells it"),
        _Row("policy_step", "qtopt_policy_step", "Gradient steps behind the newest networks"),
        _Row(
            "networks_left_out",
            "qtopt_networks_left_out",
            "Whether the policy service cannot use the newest networks, and acts with those before",
        ),
    ),
}
_PREFIX: Final = {"server": "store"}


@contextlib.contextmanager
def expose(config: MetricsConfig, role: str, figures: Figures, *more: Collector) -> Iterator[int | None]:
    """Shows figures on an HTTP port as long as the block runs; yields the port, None where there is to be none.

    Args:
        config: where.
        role: ``trainer``, ``collector/sim-0``, ...: what comes behind the slash is the label ``robot`` or ``name``.
        figures: returns the newest; called from other threads.
        more: what is to be shown beside them.

    Raises:
        ConfigError: the port cannot be had.
    """
    if config.port is None:
        yield None
        return
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for each in (FigureCollector(role, figures), *more):
        registry.register(each)
    try:
        server, thread = start_http_server(config.port, config.host.strip("[]"), registry)
    except OSError as error:
        where = join_address(config.host, config.port)
        raise ConfigError(f"metrics cannot be shown on {where}: {error.strerror}; choose another port") from error
    try:
        logger().info("metrics", address=join_address(config.host, server.server_port))
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class FigureCollector(Collector):
    """Gives a role's figures to a Prometheus registry, at each scrape the newest."""

    def __init__(self, role: str, figures: Figures) -> None:
        self._kind, _, name = role.partition("/")
        self._figures = figures
        self._labels = {("robot" if self._kind == "collector" else "name"): name} if name else {}

    def collect(self) -> Iterator[Metric]:
        """Yields one family for each name."""
        role = GaugeMetricFamily("qtopt_role_info", "What runs here", labels=["role", "version"])
        role.add_metric([self._kind, __version__], 1.0)
        families: dict[str, Metric] = {role.name: role}
        for figure, value in self._figures().items():
            row, own = _row_of(self._kind, figure)
            if not row.name:
                continue
            labels = self._labels | own
            if row.name not in families:
                kind = CounterMetricFamily if row.counts else GaugeMetricFamily
                families[row.name] = kind(row.name, row.text, labels=list(labels))
            family = families[row.name]
            assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
            family.add_metric(list(labels.values()), value * (1e-3 if figure.endswith("_ms") else 1.0))
        yield from families.values()


def _row_of(kind: str, figure: str) -> tuple[_Row, dict[str, str]]:
    """Returns how a figure is exported and the labels that its name holds; by its own name where no row has it."""
    for row in (*_EVERY, *_TABLE.get(kind, ())):
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>\\w+)", row.figure), figure)
        if found:
            return row, found.groupdict()
    if figure.endswith("_per_s"):
        return _Row(figure, "", "a rate"), {}
    base = next((figure.removesuffix(end) + "_seconds" for end in _TEXT_END if figure.endswith(end)), figure)
    name = f"qtopt_{_PREFIX.get(kind, kind)}_{re.sub(r'[^a-zA-Z0-9_]', '_', base)}"
    return _Row(figure, name, f"{figure} of the {kind}"), {}
