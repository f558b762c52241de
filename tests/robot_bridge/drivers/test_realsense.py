"""The RealSense driver over the vendor's library and its software device: no camera, but its code."""

import threading
import time

import numpy as np
import pytest

from qtopt.errors import ConfigError, RobotError, StaleFrame
from robot_bridge.contracts import Capability
from robot_bridge.drivers.frames import ThreadedCamera
from robot_bridge.drivers.realsense import DRIVER, RealSenseOptions, RealSenseSource
from tests.contracts.camera import CameraContract

rs = pytest.importorskip("pyrealsense2", exc_type=ImportError)

WIDTH, HEIGHT, FPS = 64, 48, 30


class Injected:
    """A software device with a thread that gives it noisy frames until ``silent``."""

    def __init__(self):
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.serial_number, "123")
        self.sensor = self.device.add_sensor("colour")
        stream = rs.video_stream()
        stream.type, stream.fmt, stream.bpp = rs.stream.color, rs.format.rgb8, 3
        stream.width, stream.height, stream.fps, stream.uid, stream.index = WIDTH, HEIGHT, FPS, 1, 0
        intrinsics = rs.intrinsics()
        intrinsics.width, intrinsics.height = WIDTH, HEIGHT
        stream.intrinsics = intrinsics
        self.profile = self.sensor.add_video_stream(stream)
        for option, most in ((rs.option.exposure, 1000.0), (rs.option.enable_auto_exposure, 1.0)):
            self.sensor.add_option(option, rs.option_range(0.0, most, 1.0, 1.0), True)
        self.silent, self.ended = threading.Event(), threading.Event()
        self.sent = []
        self.thread = threading.Thread(target=self._send)
        self.thread.start()

    def _send(self):
        rng = np.random.default_rng(0)
        for number in range(10_000):
            if self.ended.wait(1 / FPS):
                return
            if self.silent.is_set():
                continue
            frame = rs.software_video_frame()
            pixels = rng.integers(90, 110, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            self.sent.append(pixels)
            frame.pixels, frame.stride, frame.bpp = pixels, WIDTH * 3, 3
            frame.frame_number, frame.profile = number, self.profile.as_video_stream_profile()
            frame.timestamp, frame.domain = time.time() * 1000 - 40.0, rs.timestamp_domain.system_time
            self.sensor.on_video_frame(frame)

    def close(self):
        self.ended.set()
        self.thread.join()


@pytest.fixture
def injected():
    injected = Injected()
    yield injected
    injected.close()


@pytest.fixture
def camera_of(injected):
    started = []

    def build(**settings):
        options = RealSenseOptions(serial="123", size=(WIDTH, HEIGHT), fps=FPS, **settings)
        source = RealSenseSource(options, injected.device)
        started.append(ThreadedCamera(source, options.name, options.latency_s, options.crop))
        started[-1].start(10.0)
        return started[-1]

    yield build
    for camera in started:
        camera.stop()


@pytest.mark.realtime
class TestRealSense(CameraContract):
    @pytest.fixture
    def camera(self, camera_of):
        return camera_of()


@pytest.mark.realtime
def test_frames_come_whole_and_with_the_cameras_own_time(injected, camera_of):
    camera = camera_of()
    frame = camera.latest(2.0, not_before_ns=time.monotonic_ns())
    assert any((frame.rgb == pixels).all() for pixels in injected.sent)
    assert 0.03e9 < frame.t_receive_ns - frame.t_capture_ns < 0.5e9
    assert Capability.CAMERA_HARDWARE_TIME in camera.capabilities


@pytest.mark.realtime
def test_silence_is_stale_and_start_brings_it_back(injected, camera_of):
    camera = camera_of()
    injected.silent.set()
    time.sleep(1.5)
    with pytest.raises(StaleFrame):
        camera.latest(0.3)
    injected.silent.clear()
    camera.stop()
    camera.start(10.0)
    camera.latest(2.0)


@pytest.mark.realtime
def test_locking_is_read_back_and_what_is_out_of_range_is_refused(injected, camera_of):
    camera = camera_of(exposure=156.0)
    before = camera.latest(2.0).settings_hash
    locked = camera.lock_settings()
    assert (locked["exposure"], locked["enable_auto_exposure"]) == (156.0, 0.0)
    assert camera.latest(2.0, not_before_ns=time.monotonic_ns() + 100_000_000).settings_hash != before


@pytest.mark.realtime
def test_a_setting_that_the_camera_lacks_is_named(camera_of):
    camera = camera_of(white_balance_k=4600.0)
    with pytest.raises(RobotError, match="no white_balance"):
        camera.lock_settings()


@pytest.mark.realtime
def test_a_stream_that_is_not_offered_is_named(injected):
    source = RealSenseSource(RealSenseOptions(size=(640, 480)), injected.device)
    with pytest.raises(RobotError, match="expected"):
        ThreadedCamera(source, "camera", 0.0).start(5.0)


def test_no_device_is_an_error_within_the_deadline():
    started = time.monotonic()
    with pytest.raises(RobotError, match="found devices"):
        DRIVER.open(RealSenseOptions(serial="none")).start(1.0)
    assert time.monotonic() - started < 10.0


@pytest.mark.parametrize("settings", [{"latency_s": -1.0}, {"crop": (0, 0, 700, 480)}])
def test_options_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError):
        RealSenseOptions(**settings)
