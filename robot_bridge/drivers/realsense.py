"""Intel RealSense colour cameras, through pyrealsense2 (on Debian it needs the package ``libusb-1.0-0``).

Devices are used sensor by sensor, without the library's pipeline: the library's own ``software_device`` then runs
through the same code as a camera on a cable.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtopt.config import STRICT
from qtopt.errors import RobotError
from qtopt.types import JsonValue
from robot_bridge.contracts import Camera, Capability
from robot_bridge.driver import CameraDriver
from robot_bridge.drivers.bounds import require_within
from robot_bridge.drivers.frames import CAMERA_BOUNDS, Captured, Crop, ThreadedCamera, check_crop

READ_TIMEOUT_MS = 1000
_CLOCK_WINDOW_S = 1.0


@dataclass(frozen=True)
class RealSenseOptions:
    """The ``[camera.NAME]`` table of driver ``realsense``.

    Attributes:
        serial: serial number; empty takes the only device there is.
        size: width and height of the colour pictures [pixels].
        fps: pictures a second.
        exposure: [microseconds times 100, the library's unit]; None locks what it has when locked.
        white_balance_k: colour temperature [kelvin]; None likewise.
        latency_s: from light to arrival, for devices without a clock that this host can read.
        crop: left, top, right, bottom [pixels] of what is kept.
    """

    __pydantic_config__ = STRICT

    serial: str = ""
    size: tuple[int, int] = (640, 480)
    fps: int = 30
    exposure: float | None = None
    white_balance_k: float | None = None
    latency_s: float = 0.06
    crop: Crop | None = None

    def __post_init__(self) -> None:
        require_within(self, CAMERA_BOUNDS)
        check_crop(self.crop, self.size)

    @property
    def name(self) -> str:
        """How messages call the camera."""
        return f"RealSense {self.serial}".strip()


class RealSenseSource:
    """A ``FrameSource`` over a colour sensor.

    Args:
        options: which device and which pictures.
        device: a pyrealsense2 device to use instead of looking for one.
    """

    def __init__(self, options: RealSenseOptions, device: Any = None) -> None:
        self._options, self._device = options, device
        self._sensor: Any = None
        self._queue: Any = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Every RealSense takes settings and keeps them; times come with it where its clock is this host's."""
        return frozenset({Capability.CAMERA_LOCK, Capability.CAMERA_HARDWARE_TIME})

    def open(self, deadline_s: float) -> None:
        """Finds the device and starts its colour stream; raises RobotError."""
        rs = _library()
        device = self._device if self._device is not None else self._find(rs, deadline_s)
        sensor, profile = self._colour(rs, device)
        queue = rs.frame_queue(1)
        try:
            sensor.open(profile)
            sensor.start(queue)
        except RuntimeError as error:
            raise RobotError(f"its colour stream does not start: {error}") from error
        self._sensor, self._queue = sensor, queue

    def read(self) -> Captured:
        """Returns the next picture; raises RobotError when none came within a second."""
        rs = _library()
        try:
            frame = self._queue.wait_for_frame(READ_TIMEOUT_MS)
        except RuntimeError as error:
            raise RobotError(
                f"no picture came within {READ_TIMEOUT_MS / 1000:.0f} s: {error}; start it again"
            ) from error
        rgb = np.array(frame.get_data(), np.uint8)
        if rgb.shape[1::-1] != self._options.size:
            raise RobotError(f"pictures are {rgb.shape[1]} x {rgb.shape[0]} pixels, expected {self._options.size}")
        return Captured(rgb, self._capture_time_ns(rs, frame))

    def settings(self) -> Mapping[str, JsonValue]:
        """Returns the colour sensor's exposure, gain and white balance, automatisms included."""
        rs = _library()
        names = ("exposure", "enable_auto_exposure", "white_balance", "enable_auto_white_balance", "gain")
        options = {name: getattr(rs.option, name) for name in names}
        return {name: self._sensor.get_option(key) for name, key in options.items() if self._sensor.supports(key)}

    def lock(self) -> Mapping[str, JsonValue]:
        """Turns automatic exposure and white balance off and returns the settings as read back."""
        rs, options = _library(), self._options
        for name, wanted in (("exposure", options.exposure), ("white_balance", options.white_balance_k)):
            key, automatism = getattr(rs.option, name), getattr(rs.option, f"enable_auto_{name}")
            if not self._sensor.supports(key):
                if wanted is not None:
                    raise RobotError(f"{options.name} has no {name}; leave it out of the cell file")
                continue
            value = wanted if wanted is not None else self._sensor.get_option(key)
            self._put(automatism, 0.0, f"automatic {name}")
            self._put(key, value, name)
        return self.settings()

    def close(self) -> None:
        """Stops the stream and frees the device."""
        sensor, self._sensor, self._queue = self._sensor, None, None
        if sensor is not None:
            sensor.stop()
            sensor.close()

    def _put(self, key: Any, value: float, name: str) -> None:
        if not self._sensor.supports(key):
            return
        try:
            self._sensor.set_option(key, value)
        except RuntimeError as error:
            raise RobotError(f"{self._options.name}: {name} cannot be set to {value:g}: {error}") from error
        found = self._sensor.get_option(key)
        if abs(found - value) > max(1e-3, 0.02 * abs(value)):
            raise RobotError(f"{self._options.name}: {name} is {found:g}, expected {value:g}")

    def _find(self, rs: Any, deadline_s: float) -> Any:
        deadline = time.monotonic() + deadline_s
        while True:
            devices = list(rs.context().query_devices())
            serials = [device.get_info(rs.camera_info.serial_number) for device in devices]
            wanted = self._options.serial or (serials[0] if len(serials) == 1 else "")
            if wanted in serials:
                return devices[serials.index(wanted)]
            if time.monotonic() > deadline:
                raise RobotError(f"found devices {serials}, expected {self._options.serial or 'exactly one'}")
            time.sleep(0.1)

    def _colour(self, rs: Any, device: Any) -> tuple[Any, Any]:
        width, height = self._options.size
        seen = []
        for sensor in device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != rs.stream.color or profile.format() != rs.format.rgb8:
                    continue
                video = profile.as_video_stream_profile()
                offer = (video.width(), video.height(), video.fps())
                if offer == (width, height, self._options.fps):
                    return sensor, profile
                seen.append(offer)
        raise RobotError(f"it offers RGB of {sorted(set(seen))}, expected {(width, height, self._options.fps)}")

    def _capture_time_ns(self, rs: Any, frame: Any) -> int | None:
        """The frame's time on this host's monotonic clock; None where the camera's clock is not this host's."""
        if frame.get_frame_timestamp_domain() == rs.timestamp_domain.hardware_clock:
            return None
        age_s = time.time() - frame.get_timestamp() / 1000.0
        return time.monotonic_ns() - round(age_s * 1e9) if 0.0 <= age_s < _CLOCK_WINDOW_S else None


def _library() -> Any:
    try:
        import pyrealsense2 as rs
    except ImportError as error:
        raise RobotError(
            f"pyrealsense2 cannot be loaded: {error}; pip install '.[realsense]', and on Debian apt install "
            "libusb-1.0-0"
        ) from error
    return rs


def open_realsense(options: RealSenseOptions) -> Camera:
    """Makes a camera that is not started yet."""
    return ThreadedCamera(RealSenseSource(options), options.name, options.latency_s, options.crop)


DRIVER = CameraDriver(options=RealSenseOptions, open=open_realsense, extra="realsense")
