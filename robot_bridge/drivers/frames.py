"""What every camera driver shares: a thread that keeps the newest frame, and the checks that make it worth something.

A driver is a ``FrameSource``: open, read, settings, lock, close. ``ThreadedCamera`` makes a ``Camera`` of it. The
thread owns the source from opening to closing, so a read that hangs in a vendor's library can neither block a caller
nor be cut off by another thread's release.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qtopt.errors import ConfigError, FrozenFrame, RobotError, StaleFrame
from qtopt.types import JsonValue, UInt8Array
from robot_bridge.contracts import Capability, Frame
from robot_bridge.drivers.bounds import Bounds

_log = logging.getLogger(__name__)

FROZEN_AFTER = 10
"""So many identical thumbnails in a row, and the picture has stopped."""
DARK_MEAN, SATURATED_MEAN = 10.0, 245.0
"""Mean brightness (0 to 255) outside of which nothing can be seen."""
_THUMBNAIL_PX = 48
_SETTINGS_EVERY_S = 1.0
_JOIN_S = 3.0
_OPEN_SHARE = 0.8
"""Of the time to start: opening must fail early enough to say why."""
MOST_PX = 10_000
"""No picture is wider or higher."""
CAMERA_BOUNDS: Bounds = {
    "size": (16, MOST_PX),
    "fps": (1, 300),
    "exposure": (0, 100_000),
    "white_balance_k": (1_000, 20_000),
    "latency_s": (0.0, 1.0),
}
"""Of what every camera's table has."""
Crop = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Captured:
    """A picture from a source, RGB uint8 (H, W, 3), and when the camera says it was taken (None: it does not)."""

    rgb: UInt8Array
    t_capture_ns: int | None = None


class FrameSource(Protocol):
    """A camera's library, reduced to five calls that one thread makes."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The ``CAMERA_*`` flags it has earned."""
        ...

    def open(self, deadline_s: float) -> None:
        """Opens the camera; raises RobotError within the deadline."""
        ...

    def read(self) -> Captured:
        """Waits for the next picture for about a second at most; raises RobotError when it did not come."""
        ...

    def settings(self) -> Mapping[str, JsonValue]:
        """Returns exposure, white balance, focus and size as the camera reports them now."""
        ...

    def lock(self) -> Mapping[str, JsonValue]:
        """Turns every automatism off and returns the settings as read back; RobotError if one did not stay."""
        ...

    def close(self) -> None:
        """Frees the camera; a second call does nothing."""
        ...


def settings_hash(settings: Mapping[str, JsonValue]) -> str:
    """Returns 16 hexadecimal digits that change when any setting does."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:16]


def check_crop(crop: Crop | None, size: tuple[int, int] | None) -> None:
    """Raises ConfigError unless ``crop`` (left, top, right, bottom) lies within ``size`` (width, height) [pixels]."""
    size = size or (MOST_PX, MOST_PX)
    if crop is not None and not (0 <= crop[0] < crop[2] <= size[0] and 0 <= crop[1] < crop[3] <= size[1]):
        raise ConfigError(
            f"crop is {list(crop)}, expected left, top, right, bottom within {size[0]} x {size[1]} pixels"
        )


class FrozenWatch:
    """Counts identical thumbnails in a row. Real sensors are never still: their noise changes every picture."""

    def __init__(self) -> None:
        self._last = b""
        self.repeats = 0

    def see(self, rgb: UInt8Array) -> None:
        """Takes the next picture into account."""
        step = max(1, min(rgb.shape[:2]) // _THUMBNAIL_PX)
        thumbnail = rgb[::step, ::step].tobytes()
        self.repeats = self.repeats + 1 if thumbnail == self._last else 1
        self._last = thumbnail

    @property
    def frozen(self) -> bool:
        """Whether the picture has stopped changing."""
        return self.repeats >= FROZEN_AFTER


class ThreadedCamera:
    """A ``robot_bridge.contracts.Camera`` over a ``FrameSource``.

    Args:
        source: the camera's library.
        name: how messages call the camera.
        latency_s: from light to arrival, taken off where the camera has no clock of its own.
        crop: left, top, right, bottom [pixels] of what is kept; None keeps all.
        clock_ns: monotonic time.
    """

    def __init__(
        self,
        source: FrameSource,
        name: str,
        latency_s: float,
        crop: Crop | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._source, self._name, self._crop, self._clock_ns = source, name, crop, clock_ns
        self._latency_ns = round(latency_s * 1e9)
        self._news = threading.Condition()
        self._run: _Run | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The ``CAMERA_*`` flags of the source."""
        return self._source.capabilities

    def start(self, deadline_s: float) -> None:
        """Opens the camera and waits for its first frame. Raises RobotError; starting twice is one."""
        if self._run is not None:
            raise RobotError(f"{self._name} is already started; stop() it first")
        run = self._run = _Run(self._name)
        thread = threading.Thread(target=self._read, args=(run, deadline_s), name=f"read {self._name}", daemon=True)
        run.thread = thread
        thread.start()
        with self._news:
            self._news.wait_for(lambda: run.frame is not None or run.error, timeout=deadline_s)
            reason = run.error or ("" if run.frame is not None else f"no picture within {deadline_s:.1f} s")
        if reason:
            self.stop()
            raise RobotError(f"{self._name}: {reason}; is it plugged in, switched on and free of other programs?")

    def latest(self, max_age_s: float, not_before_ns: int = 0) -> Frame:
        """Returns the newest frame that was captured at ``not_before_ns`` or later and is at most ``max_age_s`` old.

        Waits for one for at most ``max_age_s``.

        Raises:
            StaleFrame: none came in time, or the camera is not started.
            FrozenFrame: the last ten pictures were identical.
            RobotError: the picture is dark or saturated.
        """
        run = self._run
        if run is None:
            raise StaleFrame(f"{self._name} is not started; call start() first")
        with self._news:
            self._news.wait_for(lambda: run.error or self._fits(run.frame, max_age_s, not_before_ns), max_age_s)
            frame, error, repeats, mean = run.frame, run.error, run.watch.repeats, run.mean
        if not self._fits(frame, max_age_s, not_before_ns):
            raise StaleFrame(f"{self._name}: {self._staleness(frame, max_age_s, not_before_ns)}. {error}".rstrip(". "))
        assert frame is not None
        if not DARK_MEAN <= mean <= SATURATED_MEAN:
            state = "dark" if mean < DARK_MEAN else "saturated"
            raise RobotError(
                f"{self._name} is {state}: mean brightness {mean:.0f}, expected {DARK_MEAN:.0f} to "
                f"{SATURATED_MEAN:.0f}; look at the light, the lens and the exposure"
            )
        if repeats >= FROZEN_AFTER:
            raise FrozenFrame(f"{self._name}: the last {repeats} pictures are identical; stop() and start() it again")
        return frame

    def lock_settings(self) -> Mapping[str, JsonValue]:
        """Fixes exposure, white balance and focus and returns them as read back; RobotError if they will not stay."""
        run = self._run
        if run is None:
            raise RobotError(f"{self._name} is not started; call start() first")
        # The reader makes the call: it owns the source.
        run.lock_asked.set()
        if not run.lock_done.wait(_JOIN_S):
            raise RobotError(f"{self._name}: not locked within {_JOIN_S:.0f} s; {run.error or 'it hangs'}")
        run.lock_done.clear()
        if isinstance(run.locked, RobotError):
            raise run.locked
        return run.locked

    def stop(self) -> None:
        """Closes the camera; a second call does nothing."""
        run, self._run = self._run, None
        if run is None or run.thread is None:
            return
        run.stopping.set()
        run.thread.join(_JOIN_S)
        if run.thread.is_alive():
            _log.warning("%s: its library still reads; the thread ends when that returns", self._name)

    def _fits(self, frame: Frame | None, max_age_s: float, not_before_ns: int) -> bool:
        if frame is None:
            return False
        young = self._clock_ns() - frame.t_capture_ns <= max_age_s * 1e9
        return young and frame.t_capture_ns >= not_before_ns

    def _staleness(self, frame: Frame | None, max_age_s: float, not_before_ns: int) -> str:
        if frame is None:
            return f"no picture came within {max_age_s:.2f} s"
        now = self._clock_ns()
        words = (
            f"the newest picture is {(now - frame.t_capture_ns) / 1e9:.2f} s old, expected at most {max_age_s:.2f} s"
        )
        if frame.t_capture_ns < not_before_ns:
            words += f", and was taken {(not_before_ns - frame.t_capture_ns) / 1e9:.2f} s before it was asked for"
        return words

    def _read(self, run: "_Run", deadline_s: float) -> None:
        """Body of the thread: opens, reads until told to stop or the source gives up, closes."""
        try:
            self._source.open(_OPEN_SHARE * deadline_s)
            self._keep_newest(run)
        except Exception as error:  # a vendor's library may raise anything; the caller of latest() gets to know
            with self._news:
                run.error = str(error) or type(error).__name__
                self._news.notify_all()
            _log.warning("%s: %s", self._name, run.error)
        finally:
            self._source.close()

    def _keep_newest(self, run: "_Run") -> None:
        digest, settings_due_ns, sequence = "", 0, 0
        while not run.stopping.is_set():
            captured = self._source.read()
            now = self._clock_ns()
            if run.lock_asked.is_set():
                self._lock(run)
                settings_due_ns = 0
            if now >= settings_due_ns:
                digest = settings_hash({**self._source.settings(), "size": list(captured.rgb.shape[1::-1])})
                settings_due_ns = now + round(_SETTINGS_EVERY_S * 1e9)
            rgb = np.ascontiguousarray(_cut(captured.rgb, self._crop))
            rgb.flags.writeable = False
            t_capture_ns = captured.t_capture_ns if captured.t_capture_ns is not None else now - self._latency_ns
            with self._news:
                run.watch.see(rgb)
                run.mean = float(rgb[::4, ::4].mean())
                run.frame = Frame(rgb, t_capture_ns, now, sequence, digest)
                self._news.notify_all()
            sequence += 1

    def _lock(self, run: "_Run") -> None:
        run.lock_asked.clear()
        try:
            run.locked = self._source.lock()
        except RobotError as error:
            run.locked = error
        run.lock_done.set()


class _Run:
    """What one start of a camera has brought so far; a later start knows nothing of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.thread: threading.Thread | None = None
        self.stopping, self.lock_asked, self.lock_done = threading.Event(), threading.Event(), threading.Event()
        self.frame: Frame | None = None
        self.watch = FrozenWatch()
        self.mean = 0.0
        self.error = ""
        self.locked: Mapping[str, JsonValue] | RobotError = {}


def _cut(rgb: UInt8Array, crop: Crop | None) -> UInt8Array:
    if crop is None:
        return rgb
    left, top, right, bottom = crop
    height, width = rgb.shape[:2]
    if right > width or bottom > height:
        raise RobotError(f"pictures are {width} x {height} pixels, too small for the crop {list(crop)}")
    return rgb[top:bottom, left:right]
