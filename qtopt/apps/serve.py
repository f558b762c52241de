"""The server's process: episode store, labels, networks, figures and policy service on one port."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qtopt.agent.cem import CemConfig
from qtopt.agent.network import QNetwork
from qtopt.agent.policy import CemPolicy
from qtopt.agent.snapshot import check, load_policy_network
from qtopt.apps.metrics import MetricsConfig, expose
from qtopt.apps.process import StopSignal, allow_open_files, begin, limit_threads, logger
from qtopt.apps.room import disk_figures, trouble
from qtopt.config import STRICT
from qtopt.durable import make_directory
from qtopt.errors import CheckpointError, RemoteError, ServerUnavailable, StoreError
from qtopt.interfaces import Policy
from qtopt.replay import ReplayConfig, StoreFormat
from qtopt.replay.episode_store import EpisodeStore
from qtopt.replay.lock import WriterLock
from qtopt.rpc import Audit, BackgroundServer, ModelRegistry, ServerConfig, ServerMetrics, Services
from qtopt.types import Decision, Observation

_PUBLISHED_BY = "the published networks are being written by process"
_LOOK_BACK_EPISODES = 10_000
"""Robots that made one of so many newest episodes are expected to make more, from the start on."""


@dataclass(frozen=True)
class Config:
    """The server: episode store, labels, published networks, figures and the policy service.

    Attributes:
        listen: address, TLS, token.
        store: directory of the episode store; made if it is missing.
        models: directory of the published networks; made if it is missing.
        seed: of sampling.
        image_px: height and width of the images that a new store holds.
        threads: threads of torch, for the policy service.
        cem: sizes of the search for the best action, in the policy service.
        replay: store, sampling, labels.
        metrics: where Prometheus finds this process's figures.
        audit: file that is told who appended, published and was refused, as JSON lines; at 16 MB a new one begins.
    """

    __pydantic_config__ = STRICT

    listen: ServerConfig = field(default_factory=ServerConfig)
    store: Path = Path("outputs/store")
    models: Path = Path("outputs/models")
    seed: int = 0
    image_px: int = 72
    threads: int = 1
    cem: CemConfig = field(default_factory=CemConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    audit: Path | None = None


class NewestNetwork:
    """The newest published network that can be used, shared by all sessions of the policy service.

    Attributes:
        version: of the network in use; 0 before the first.
    """

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._network: QNetwork | None = None
        self._seen, self._left_out = 0, ""
        self.version = 0

    def get(self) -> QNetwork:
        """Returns the network; raises ServerUnavailable before the first one that can be used."""
        with self._lock:
            snapshot = self._registry.latest(self._seen)
            if snapshot is not None:
                try:
                    self._network, self.version = load_policy_network(snapshot.payload), snapshot.version
                    self._left_out = ""
                except CheckpointError as error:
                    self._left_out = f"networks of version {snapshot.version} cannot be used: {error}"
                    logger().error(
                        "newer networks are left out", version=snapshot.version, kept=self.version, error=str(error)
                    )
                self._seen = snapshot.version  # not where anything else went wrong: that is tried again
            if self._network is None:
                raise ServerUnavailable(
                    self._left_out or "no policy was published yet: start the trainer, or wait for it"
                )
            return self._network

    def trouble(self) -> str | None:
        """Says what keeps the policy service from serving; where others act, networks that are left out do not."""
        if not self._registry.version:
            return "no networks were published yet"
        return self._left_out if self._network is None and self._left_out else None

    def figures(self) -> dict[str, float]:
        """Returns whether the newest networks are left out, 0 or 1."""
        return {"networks_left_out": float(bool(self._left_out))}


class NewestPolicy:
    """Acts greedily with what is the newest network when an episode begins; implements ``interfaces.Policy``."""

    def __init__(self, newest: NewestNetwork, cem: CemConfig) -> None:
        self._newest, self._cem = newest, cem
        self._policy: Policy | None = None

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Takes the newest network; raises ServerUnavailable before the first publication."""
        self._policy = CemPolicy(self._newest.get(), self._cem)
        self._policy.begin_episode(rng)

    def select(self, observation: Observation) -> Decision:
        """Returns the best action found; raises RemoteError before the first ``begin_episode``."""
        if self._policy is None:
            raise RemoteError("the policy was asked for an action before an episode had begun: begin one first")
        return self._policy.select(observation)


@contextlib.contextmanager
def sole_publisher(models: Path) -> Iterator[None]:
    """Keeps other servers out of a directory of published networks, which it makes, as long as the block runs.

    A disk that has no room for the lock, or is read-only, keeps no server from serving what is there.

    Raises:
        StoreError: another server has it.
    """
    try:
        make_directory(models)
        # a name of its own: the directory may be the store's too
        lock = WriterLock(models, _PUBLISHED_BY, "give another directory (--models)", "models.lock")
    except OSError as error:
        logger().warning("nothing keeps other servers out of the networks", directory=str(models), error=str(error))
        yield
        return
    try:
        yield
    finally:
        lock.release()


def main(config: Config) -> int:
    """Serves until it is told to stop."""
    stop = begin("server")
    limit_threads(config.threads)
    allow_open_files()
    with sole_publisher(config.models.absolute()):
        return _serve(config, stop)


def _serve(config: Config, stop: StopSignal) -> int:
    audit = Audit(config.audit)
    registry = ModelRegistry(config.models.absolute(), check=check)
    newest = NewestNetwork(registry)
    metrics = ServerMetrics()
    opened: list[EpisodeStore] = []

    def open_store() -> EpisodeStore:
        began_s = time.monotonic()
        fmt = StoreFormat.for_images(config.image_px, codec=config.replay.codec)
        rng = np.random.default_rng(config.seed)
        opened.append(EpisodeStore(config.store.absolute(), fmt, config.replay, rng=rng))
        try:
            metrics.expect(opened[0].collectors(_LOOK_BACK_EPISODES))
        except StoreError as error:
            logger().warning("robots are counted from their next episode on", error=str(error))
        held = opened[0].stats()
        recovered = {name: held[name] for name in ("episodes", "quarantined", "segments", "landed_steps", "labels")}
        logger().info("store opened", took_s=round(time.monotonic() - began_s, 2), **recovered)
        return opened[0]

    services = Services(
        image_size=(config.image_px, config.image_px),
        open_store=open_store,
        registry=registry,
        make_policy=lambda: NewestPolicy(newest, config.cem),
        policy_version=lambda: newest.version,
        looks={
            "Replay": lambda: opened[0].condition().reason or None if opened else "the store is being opened",
            "Model": lambda: trouble(config.models, config.replay.min_free_mb),
            "Policy": newest.trouble,
        },
        metrics=metrics,
        audit=audit,
    )
    own: list[Callable[[], dict[str, float]]] = [lambda: disk_figures(config.store)]
    own += [registry.figures, newest.figures]

    def figures() -> dict[str, float]:
        return {name: value for part in own for name, value in part().items()}

    def all_figures() -> dict[str, float]:
        stats = opened[0].stats() if opened else {}
        return {name: value for name, value in stats.items() if isinstance(value, float)} | figures()

    try:
        with (
            expose(config.metrics, "server", all_figures, metrics.registry),
            BackgroundServer(config.listen, services) as server,
        ):
            own.append(server.figures)
            logger().info("serving", address=server.address, store=str(config.store))
            while not stop.wait(2.0):
                services.board.report("server", figures())
    finally:
        for store in opened:
            store.close()
        audit.close()
    logger().info("server ended")
    return 0
