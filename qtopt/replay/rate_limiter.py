"""Keeps labelling and learning in step: so many samples are drawn for each label that is put in, give or take a buffer.

Without it the faster side wins the processor: fresh labels that nobody learns from, or the same few labels learned from
again and again.
"""

import threading
import time
from dataclasses import dataclass

from qtopt.config import STRICT
from qtopt.errors import ConfigError

_ROUNDING = 1e-3  # of a sample: lest both sides wait for the last bit of a product


@dataclass(frozen=True)
class RateLimiterConfig:
    """Settings of the limiter.

    Attributes:
        samples_per_insert: samples drawn for each label put in, in the long run; 0 switches the limiter off.
        min_size: labels that must be there before the first sample.
        error_buffer: how many samples either side may be ahead.
        insert_batch, sample_batch: the largest batches that will be put and drawn; a buffer too small for them would
            let both sides wait for ever.
    """

    __pydantic_config__ = STRICT

    samples_per_insert: float = 0.0
    min_size: int = 1
    error_buffer: float = 4096.0
    insert_batch: int = 256
    sample_batch: int = 256

    def __post_init__(self) -> None:
        if self.samples_per_insert < 0 or self.min_size < 1 or min(self.insert_batch, self.sample_batch) < 1:
            raise ConfigError(
                f"rate limiter: found samples_per_insert {self.samples_per_insert}, expected 0 or more; min_size "
                f"{self.min_size}, batches of {self.insert_batch} and {self.sample_batch}, expected 1 or more"
            )
        needed = (self.sample_batch + self.samples_per_insert * self.insert_batch) / 2
        if self.samples_per_insert > 0 and self.error_buffer < needed:
            raise ConfigError(
                f"rate limiter: error_buffer {self.error_buffer:g} would deadlock with batches of {self.insert_batch} "
                f"labels and {self.sample_batch} samples at {self.samples_per_insert:g} samples per insert; "
                f"expected at least {needed:g}"
            )


class SamplesPerInsert:
    """Decides whether a batch may be put or drawn now; safe to call from several threads.

    Example::

    limiter.wait_to_insert(64, timeout_s=5.0); limiter.count_insert(64)
    if limiter.take_samples(64, timeout_s=5.0): ...
    """

    def __init__(self, config: RateLimiterConfig) -> None:
        self.config = config
        self._inserted = 0
        self._sampled = 0
        self._changed = threading.Condition()
        self._waiting_samplers = 0
        self._waiting_inserters = 0

    def can_insert(self, count: int) -> bool:
        """Whether ``count`` more labels may be made now."""
        config = self.config
        if config.samples_per_insert == 0 or self._inserted < config.min_size:
            return True
        ahead = (self._inserted + count - config.min_size) * config.samples_per_insert - self._sampled
        return ahead <= config.error_buffer + _ROUNDING

    def can_sample(self, count: int) -> bool:
        """Whether ``count`` more samples may be drawn now."""
        config = self.config
        if self._inserted < config.min_size:
            return False
        if config.samples_per_insert == 0:
            return True
        ahead = (self._inserted - config.min_size) * config.samples_per_insert - self._sampled - count
        return ahead >= -config.error_buffer - _ROUNDING

    def _require(self, count: int, most: int, name: str) -> None:
        if self.config.samples_per_insert > 0 and count > most:
            raise ConfigError(
                f"a batch of {count} is more than the rate limiter's {name} {most}: choose smaller ones, or a larger "
                f"replay.limiter.{name} for the server"
            )

    def count_insert(self, count: int) -> None:
        """Counts ``count`` labels that were put in."""
        with self._changed:
            self._inserted += count
            self._changed.notify_all()

    def wait_to_insert(self, count: int, timeout_s: float) -> bool:
        """Waits until ``count`` labels may be made; returns False when ``timeout_s`` passed first.

        Raises:
            ConfigError: batches of that size could make both sides wait for ever.
        """
        self._require(count, self.config.insert_batch, "insert_batch")
        with self._changed:
            self._waiting_inserters += 1
            try:
                return self._changed.wait_for(lambda: self.can_insert(count), timeout_s)
            finally:
                self._waiting_inserters -= 1

    def take_samples(self, count: int, timeout_s: float) -> bool:
        """Waits until ``count`` samples may be drawn and counts them; returns False when ``timeout_s`` passed first.

        Raises:
            ConfigError: batches of that size could make both sides wait for ever.
        """
        self._require(count, self.config.sample_batch, "sample_batch")
        with self._changed:
            self._waiting_samplers += 1
            try:
                if not self._changed.wait_for(lambda: self.can_sample(count), timeout_s):
                    return False
            finally:
                self._waiting_samplers -= 1
            self._sampled += count
            self._changed.notify_all()
            return True

    def status(self) -> str:
        """Says who waits for whom, for people."""
        with self._changed:
            if self._waiting_samplers:
                if self._inserted < self.config.min_size:
                    return f"trainer waits for the first labels ({self._inserted} of {self.config.min_size})"
                return "trainer waits for labels"
            if self._waiting_inserters:
                return "updaters wait for the trainer"
            return "nobody waits"

    def figures(self) -> dict[str, float]:
        """Returns counts and how many callers wait on either side."""
        with self._changed:
            return {
                "labels_put": float(self._inserted),
                "labels_sampled": float(self._sampled),
                "waiting_trainers": float(self._waiting_samplers),
                "waiting_updaters": float(self._waiting_inserters),
            }


def remaining_s(deadline: float) -> float:
    """Seconds until ``deadline`` on the monotonic clock, at least 0."""
    return max(0.0, deadline - time.monotonic())
