"""The camera of driver number 0: renders the simulated arm's plant at a steady rate."""

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from qtopt.config import STRICT
from qtopt.errors import ConfigError, RobotError, StaleFrame
from qtopt.types import JsonValue
from robot_bridge.contracts import Capability, Frame
from robot_bridge.driver import CameraDriver
from sim.driver import plant_of
from sim.plant import Plant


@dataclass(frozen=True)
class PlantCameraOptions:
    """The camera that looks at a plant.

    Attributes:
        name: of the arm's plant.
        fps: frames in a second.
    """

    __pydantic_config__ = STRICT

    name: str = "sim"
    fps: float = 10.0

    def __post_init__(self) -> None:
        if not 0.5 <= self.fps <= 60.0:
            raise ConfigError(f"fps is {self.fps}, expected 0.5 to 60")


class PlantCamera:
    """A ``robot_bridge.contracts.Camera`` that renders a plant at a steady rate."""

    def __init__(self, options: PlantCameraOptions, plant: Plant | None = None) -> None:
        self._options, self._plant = options, plant
        self._news = threading.Condition()
        self._newest: Frame | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure = ""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Its settings never change, and time is exact."""
        return frozenset({Capability.CAMERA_LOCK, Capability.CAMERA_HARDWARE_TIME, Capability.SIMULATED})

    def start(self, deadline_s: float) -> None:
        """Starts to render and waits for the first frame."""
        plant = self._plant if self._plant is not None else plant_of(self._options.name)
        self._thread = threading.Thread(target=self._run, args=(plant,), name="plant-camera", daemon=True)
        self._thread.start()
        self.latest(deadline_s)

    def latest(self, max_age_s: float, not_before_ns: int = 0) -> Frame:
        """Returns the newest frame that is new enough, waiting for it at most ``max_age_s``."""
        until = time.monotonic() + max_age_s
        with self._news:
            while True:
                frame, now_ns = self._newest, time.monotonic_ns()
                if self._failure:
                    raise StaleFrame(f"the simulated camera broke: {self._failure}")
                if frame and frame.t_capture_ns >= max(not_before_ns, now_ns - int(max_age_s * 1e9)):
                    return frame
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise StaleFrame(f"no frame that is new enough came within {max_age_s:.2f} s")
                self._news.wait(left_s)

    def lock_settings(self) -> Mapping[str, JsonValue]:
        """Returns the settings, which never change."""
        return {"fps": self._options.fps, "simulated": True}

    def stop(self) -> None:
        """Ends the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, plant: Plant) -> None:
        settings = hashlib.sha256(repr(self._options).encode()).hexdigest()[:16]
        due = time.monotonic()
        try:
            for sequence in count():
                captured_ns = time.monotonic_ns()
                rgb = plant.image()
                with self._news:
                    self._newest = Frame(rgb, captured_ns, time.monotonic_ns(), sequence, settings)
                    self._news.notify_all()
                due = max(due + 1.0 / self._options.fps, time.monotonic())
                if self._closing.wait(due - time.monotonic()):
                    return
        except RobotError as error:
            with self._news:
                self._failure = str(error)
                self._news.notify_all()


CAMERA = CameraDriver(options=PlantCameraOptions, open=PlantCamera)
