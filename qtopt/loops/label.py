"""The Bellman updater's loop: sample transitions, compute targets with the newest networks, put them back."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qtopt.config import STRICT
from qtopt.errors import ConfigError, RemoteError, StoreError
from qtopt.interfaces import ModelSource, TargetSink, TransitionSource
from qtopt.loops.collect import Follower
from qtopt.loops.metrics import Clock, Every
from qtopt.loops.retry import Prefetch, Setback, Stop, never
from qtopt.types import ModelSnapshot, Targets, Transitions

Compute = Callable[[Transitions, int], Targets]
"""Computes targets with networks of the version given."""


@dataclass(frozen=True)
class LabelLoopConfig:
    """How a Bellman updater runs.

    Attributes:
        batch_size: transitions labelled at once.
        refresh_every_s: time between two looks for newer target networks [s].
        timeout_s: longest wait for transitions in one request [s].
        prefetch: requests for transitions kept under way.
    """

    __pydantic_config__ = STRICT

    batch_size: int = 256
    refresh_every_s: float = 2.0
    timeout_s: float = 1.0
    prefetch: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.prefetch < 1 or self.timeout_s <= 0:
            raise ConfigError(
                f"label: batch_size {self.batch_size}, prefetch {self.prefetch} and timeout_s {self.timeout_s} "
                "must all be positive"
            )


@dataclass(frozen=True, slots=True)
class Labelled:
    """What one turn of the loop did.

    Attributes:
        count: labels put back; 0 when there was nothing to label or nobody answered.
        model_version: version of the networks that made them.
        mean_target: mean of the labels; NaN without any.
        compute_s: time computing [s].
        wait_s: time waiting for the server [s].
    """

    count: int
    model_version: int
    mean_target: float
    compute_s: float
    wait_s: float


def label(
    source: TransitionSource,
    sink: TargetSink,
    models: ModelSource,
    build: Callable[[ModelSnapshot], Compute],
    *,
    config: LabelLoopConfig,
    stop: Stop = never,
    clock: Clock = time.monotonic,
) -> Iterator[Labelled]:
    """Labels transitions until told to stop; holds no state but the newest networks.

    Whatever the server answers, its disk's faults and its own included, makes it wait and try again.

    Args:
        source: gives transitions.
        sink: takes labels back.
        models: gives the target networks; nothing is labelled before the first ones are published.
        build: makes the function that computes targets from a snapshot.
        config: batch size and pace.
        stop: asked between batches.
        clock: measures where the time goes [s].

    Raises:
        AccessDenied: this role may not do this, and never could.
        CheckpointError: the first networks are none that can be used.
    """
    follower, look = Follower(models, build, clock), Every(config.refresh_every_s, clock=clock)
    setback = Setback("nothing is labelled")
    with Prefetch(lambda: source.sample_transitions(config.batch_size, config.timeout_s), config.prefetch) as ahead:
        while not stop():
            started = clock()
            if follower.current is None or look.due():
                follower.refresh()
            if follower.current is None:
                time.sleep(0.1)
                continue
            try:
                transitions = ahead.next()
                received = clock()
                targets = follower.current(transitions, follower.version)
                computed = clock()
                sink.put_targets(targets)
            except (RemoteError, StoreError) as error:
                setback.bear(error)
                yield Labelled(0, follower.version, float("nan"), 0.0, clock() - started)
                setback.wait(stop)
                continue
            setback.over()
            wait_s = clock() - started - (computed - received)
            yield Labelled(len(targets), follower.version, float(targets.value.mean()), computed - received, wait_s)
