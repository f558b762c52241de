"""USB cameras and MJPEG streams over HTTP, through OpenCV."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import cv2

from qtopt.config import STRICT
from qtopt.errors import ConfigError, RobotError
from qtopt.types import JsonValue
from robot_bridge.contracts import Camera, Capability
from robot_bridge.driver import CameraDriver
from robot_bridge.drivers.bounds import require_within
from robot_bridge.drivers.frames import CAMERA_BOUNDS, Captured, Crop, ThreadedCamera, check_crop

READ_TIMEOUT_S = 1.0
_V4L_TIMEOUT = "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"
_TOLERANCE = 0.02


@dataclass(frozen=True)
class UvcOptions:
    """The ``[camera.NAME]`` table of driver ``uvc``: exactly one of ``device`` and ``url``.

    Attributes:
        device: path such as ``/dev/v4l/by-id/...-index0``, or a number.
        url: ``http://`` address of an MJPEG stream; its settings are locked where it comes from, not here.
        size: width and height [pixels] that pictures must have; None takes what comes.
        fps: pictures a second to ask a device for.
        exposure: in the device's own unit; None locks what it has when locked.
        white_balance_k: colour temperature [kelvin]; None likewise.
        focus: in the device's own unit; None likewise.
        latency_s: from light to arrival, as ``calibrate latency`` measured it.
        crop: left, top, right, bottom [pixels] of what is kept.
    """

    __pydantic_config__ = STRICT

    device: str = ""
    url: str = ""
    size: tuple[int, int] | None = None
    fps: float | None = None
    exposure: float | None = None
    white_balance_k: float | None = None
    focus: float | None = None
    latency_s: float = 0.1
    crop: Crop | None = None

    def __post_init__(self) -> None:
        if bool(self.device) == bool(self.url):
            raise ConfigError(f"camera has device {self.device!r} and url {self.url!r}, expected exactly one of them")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"camera url is {self.url!r}, expected http:// or https://")
        require_within(self, {**CAMERA_BOUNDS, "focus": (0, 10_000)})
        if self.url and (self.exposure, self.white_balance_k, self.focus, self.fps) != (None,) * 4:
            raise ConfigError("a camera behind a url takes no exposure, white_balance_k, focus or fps; set them there")
        check_crop(self.crop, self.size)

    @property
    def name(self) -> str:
        """How messages call the camera."""
        return f"camera {self.device or self.url}"


class Controls(Protocol):
    """The part of ``cv2.VideoCapture`` that settings go through."""

    def set(self, prop: int, value: float) -> bool:
        """Sets a property."""
        ...

    def get(self, prop: int) -> float:
        """Returns a property, -1 or 0 where there is none."""
        ...


def lock_controls(controls: Controls, options: UvcOptions) -> Mapping[str, JsonValue]:
    """Turns every automatism off, sets or keeps each value, and returns them as read back.

    Raises:
        RobotError: an automatism stayed on, or a value that was asked for did not stay.
    """
    faults = []
    locked: dict[str, JsonValue] = {}
    for name, prop, automatism, off, wanted in (
        ("exposure", cv2.CAP_PROP_EXPOSURE, cv2.CAP_PROP_AUTO_EXPOSURE, 1.0, options.exposure),
        ("white_balance_k", cv2.CAP_PROP_WB_TEMPERATURE, cv2.CAP_PROP_AUTO_WB, 0.0, options.white_balance_k),
        ("focus", cv2.CAP_PROP_FOCUS, cv2.CAP_PROP_AUTOFOCUS, 0.0, options.focus),
    ):
        present = controls.get(automatism) >= 0.0
        if not present and wanted is None:
            continue
        value = wanted if wanted is not None else controls.get(prop)
        controls.set(automatism, off)
        controls.set(prop, value)
        found = locked[name] = controls.get(prop)
        if present and controls.get(automatism) != off:
            faults.append(f"automatic {name} stays on")
        if abs(found - value) > max(1.0, _TOLERANCE * abs(value)):
            faults.append(f"{name} is {found:g}, expected {value:g}")
    if faults:
        raise RobotError(f"{options.name}: {'; '.join(faults)}; v4l2-ctl --list-ctrls shows what the device takes")
    return locked


class UvcSource:
    """A ``FrameSource`` over ``cv2.VideoCapture``."""

    def __init__(self, options: UvcOptions) -> None:
        self._options = options
        self._capture: Any = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """``CAMERA_LOCK`` for a device; nothing for a stream."""
        return frozenset({Capability.CAMERA_LOCK}) if self._options.device else frozenset()

    def open(self, deadline_s: float) -> None:
        """Opens the device or the stream; raises RobotError."""
        # OpenCV waits ten seconds for a device by default and reads this once, when the first one is opened.
        os.environ.setdefault(_V4L_TIMEOUT, str(round(READ_TIMEOUT_S)))
        self._capture = self._open_stream(deadline_s) if self._options.url else self._open_device()
        if not self._capture.isOpened():
            raise RobotError("it cannot be opened")

    def read(self) -> Captured:
        """Returns the next picture; raises RobotError when none came within about a second."""
        good, bgr = self._capture.read()
        if not good:
            raise RobotError(f"no picture came within {READ_TIMEOUT_S:.0f} s; stop() and start() it again")
        size = self._options.size
        if size is not None and bgr.shape[1::-1] != size:
            raise RobotError(f"pictures are {bgr.shape[1]} x {bgr.shape[0]} pixels, expected {size[0]} x {size[1]}")
        return Captured(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))

    def settings(self) -> Mapping[str, JsonValue]:
        """Returns exposure, white balance and focus, automatisms included; of a stream nothing is known."""
        if self._options.url:
            return {}
        names = ("EXPOSURE", "AUTO_EXPOSURE", "WB_TEMPERATURE", "AUTO_WB", "FOCUS", "AUTOFOCUS", "GAIN")
        return {name.lower(): self._capture.get(getattr(cv2, f"CAP_PROP_{name}")) for name in names}

    def lock(self) -> Mapping[str, JsonValue]:
        """Locks a device's settings; RobotError for a stream, whose settings are out of reach."""
        if self._options.url:
            raise RobotError(f"{self._options.name}: a stream's settings cannot be locked from here; lock them there")
        return lock_controls(self._capture, self._options)

    def close(self) -> None:
        """Frees the device."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open_stream(self, deadline_s: float) -> Any:
        limits = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: round(deadline_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: round(READ_TIMEOUT_S * 1000),
        }
        return cv2.VideoCapture(self._options.url, cv2.CAP_FFMPEG, [word for pair in limits.items() for word in pair])

    def _open_device(self) -> Any:
        options = self._options
        wishes: dict[int, int] = {cv2.CAP_PROP_BUFFERSIZE: 1}
        if options.size is not None:
            wishes |= {cv2.CAP_PROP_FRAME_WIDTH: options.size[0], cv2.CAP_PROP_FRAME_HEIGHT: options.size[1]}
        if options.fps is not None:
            wishes[cv2.CAP_PROP_FPS] = round(options.fps)
        device: Any = int(options.device) if options.device.isdigit() else options.device
        capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        for prop, value in wishes.items():
            capture.set(prop, value)
        return capture


def open_uvc(options: UvcOptions) -> Camera:
    """Makes a camera that is not started yet."""
    return ThreadedCamera(UvcSource(options), options.name, options.latency_s, options.crop)


DRIVER = CameraDriver(options=UvcOptions, open=open_uvc)
