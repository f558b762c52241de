"""What a camera and an arm say at the same time, written down beside a motion: it shows the camera's latency."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import cv2
import numpy as np

from qtopt.errors import RobotError
from qtopt.types import UInt8Array
from robot_bridge.contracts import ArmState, Camera
from robot_bridge.success.calibrate import Signal

_REPORT_S: Final = 0.004
_PICTURE_S: Final = 1.0
_KEPT_PX: Final = 64


class Recording:
    """Writes down pictures and reports of the arm during a block, in two threads of its own.

    Args:
        camera: started.
        arm: returns the arm's newest report.

    Attributes:
        pictures: RGB, uint8 (64, 64, 3) each.
    """

    def __init__(self, camera: Camera, arm: Callable[[], ArmState | None]) -> None:
        self._camera, self._arm = camera, arm
        self._over = threading.Event()
        self._failure: RobotError | None = None
        self._received_ns: list[int] = []
        self.pictures: list[UInt8Array] = []
        self._reports: dict[int, tuple[float, ...]] = {}
        self._threads = [
            threading.Thread(target=self._guarded, args=(note,), name=note.__name__, daemon=True)
            for note in (self._note_picture, self._note_report)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def received_s(self) -> Signal:
        """When each picture was received, float64 (N,), monotonic clock."""
        return np.array(self._received_ns) / 1e9

    def track(self) -> tuple[Signal, Signal]:
        """Returns when each report was received, float64 (M,), and how far along its swing the arm was, float64 (M,).

        Raises:
            RobotError: camera or arm fell silent on the way.
        """
        if self._failure is not None:
            raise self._failure
        places = np.array([*self._reports.values()], np.float64).reshape(-1, 3)
        if not len(places):
            raise RobotError("the arm did not report while it swung; is it connected?")
        _, _, axes = np.linalg.svd(places - places.mean(0), full_matrices=False)
        return np.array([*self._reports]) / 1e9, np.asarray((places - places.mean(0)) @ axes[0])

    def _guarded(self, note: Callable[[], None]) -> None:
        try:
            while not self._over.is_set():
                note()
        except RobotError as error:
            self._failure = error

    def _note_picture(self) -> None:
        after_ns = self._received_ns[-1] + 1 if self._received_ns else 0
        frame = self._camera.latest(_PICTURE_S, 0)
        if frame.t_receive_ns < after_ns:
            time.sleep(_REPORT_S)
            return
        self._received_ns.append(frame.t_receive_ns)
        size = (_KEPT_PX, _KEPT_PX)
        self.pictures.append(np.asarray(cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA), np.uint8))

    def _note_report(self) -> None:
        state = self._arm()
        if state is not None:
            self._reports[state.t_host_ns] = tuple(state.pose.position_m)
        self._over.wait(_REPORT_S)
