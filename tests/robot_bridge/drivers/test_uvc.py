"""OpenCV against a real MJPEG server in another process: ages, freezes, stalls, darkness, reopening."""

import time

import cv2
import numpy as np
import pytest

from qtopt.errors import ConfigError, FrozenFrame, RobotError, StaleFrame
from robot_bridge.contracts import Capability
from robot_bridge.drivers.frames import FrozenWatch, settings_hash
from robot_bridge.drivers.uvc import DRIVER, UvcOptions, lock_controls
from sim.servers.mjpeg import CameraFault, MjpegServer, parse_fault
from tests.contracts.camera import CameraContract
from tests.robot_bridge.drivers.cameras import camera_process, eventually


@pytest.fixture(scope="module")
def server():
    with camera_process("--fps", "30") as process:
        yield process


@pytest.fixture
def camera(server):
    server.fault("none")
    camera = DRIVER.open(UvcOptions(url=server.url, size=(320, 240), latency_s=0.02))
    camera.start(10.0)
    yield camera
    server.fault("none")
    camera.stop()


@pytest.mark.realtime
class TestMjpegStream(CameraContract):
    @pytest.fixture
    def camera(self, camera):
        return camera


@pytest.mark.realtime
def test_frames_are_new_ordered_and_of_their_own(camera):
    first = camera.latest(1.0)
    asked = time.monotonic_ns()
    second = camera.latest(2.0, not_before_ns=asked)
    assert second.sequence > first.sequence
    assert asked <= second.t_capture_ns < second.t_receive_ns <= time.monotonic_ns()
    assert second.t_receive_ns - second.t_capture_ns == 20_000_000
    assert (second.rgb.dtype, second.rgb.shape) == (np.uint8, (240, 320, 3))
    assert first.settings_hash == second.settings_hash
    # The square is red: RGB, not OpenCV's BGR.
    red = second.rgb.astype(int)
    assert (red[..., 0] - red[..., 2]).max() > 100


@pytest.mark.realtime
def test_a_frozen_stream_is_named(camera, server):
    server.fault("freeze")
    error, _ = eventually(lambda: camera.latest(1.0), FrozenFrame)
    assert "identical" in str(error)


@pytest.mark.realtime
def test_a_stalled_stream_is_stale_and_comes_back_by_stop_and_start(camera, server):
    server.fault("stall")
    error, took_s = eventually(lambda: camera.latest(0.5), StaleFrame)
    assert "old" in str(error)
    assert took_s < 3.0
    time.sleep(1.5)
    server.fault("none")
    # Nothing comes back by itself: a read that timed out has left the stream unusable.
    with pytest.raises(StaleFrame):
        camera.latest(0.5)
    camera.stop()
    camera.start(10.0)
    assert camera.latest(1.0).sequence >= 0


@pytest.mark.realtime
@pytest.mark.parametrize(("fault", "word"), [("black", "dark"), ("exposure 9", "saturated")])
def test_a_picture_of_nothing_is_named(camera, server, fault, word):
    server.fault(fault)
    error, _ = eventually(lambda: camera.latest(1.0), RobotError)
    assert word in str(error)


@pytest.mark.realtime
def test_a_killed_camera_is_stale_and_its_thread_ends():
    with camera_process() as server:
        camera = DRIVER.open(UvcOptions(url=server.url))
        camera.start(10.0)
        camera.latest(1.0)
        server.kill()
        eventually(lambda: camera.latest(0.5), StaleFrame)
        thread = camera._run.thread
        camera.stop()
        camera.stop()
        assert not thread.is_alive()
        with pytest.raises(RobotError, match="cannot be opened"):
            camera.start(3.0)
        with pytest.raises(StaleFrame, match="not started"):
            camera.latest(0.1)


@pytest.mark.realtime
def test_a_stream_of_another_size_or_smaller_than_the_crop_is_refused(server):
    for settings, word in (({"size": (640, 480)}, "expected 640 x 480"), ({"crop": (0, 0, 400, 100)}, "too small")):
        with pytest.raises(RobotError, match=word):
            DRIVER.open(UvcOptions(url=server.url, **settings)).start(10.0)


@pytest.mark.realtime
def test_crop_cuts_and_a_stream_cannot_be_locked(server):
    camera = DRIVER.open(UvcOptions(url=server.url, crop=(20, 10, 120, 110)))
    camera.start(10.0)
    try:
        assert camera.latest(1.0).rgb.shape == (100, 100, 3)
        assert camera.capabilities == frozenset()
        with pytest.raises(RobotError, match="lock them there"):
            camera.lock_settings()
    finally:
        camera.stop()


def test_a_device_that_is_not_there_is_an_error_within_the_deadline():
    camera = DRIVER.open(UvcOptions(device="/dev/video-none"))
    assert camera.capabilities == {Capability.CAMERA_LOCK}
    with pytest.raises(RobotError, match="cannot be opened"):
        camera.start(3.0)


class Device:
    """Controls of a webcam, as OpenCV shows them; ``stubborn`` ones do not change."""

    def __init__(self, stubborn=()):
        self.values = {
            cv2.CAP_PROP_AUTO_EXPOSURE: 3.0,
            cv2.CAP_PROP_EXPOSURE: 156.0,
            cv2.CAP_PROP_AUTO_WB: 1.0,
            cv2.CAP_PROP_WB_TEMPERATURE: 4600.0,
        }
        self.stubborn = stubborn

    def get(self, prop):
        return self.values.get(prop, -1.0)

    def set(self, prop, value):
        if prop in self.values and prop not in self.stubborn:
            self.values[prop] = value
            return True
        return False


def test_locking_turns_automatisms_off_and_keeps_or_sets_values():
    device = Device()
    locked = lock_controls(device, UvcOptions(device="0", exposure=200.0))
    assert locked == {"exposure": 200.0, "white_balance_k": 4600.0}
    assert device.values[cv2.CAP_PROP_AUTO_EXPOSURE] == 1.0
    assert device.values[cv2.CAP_PROP_AUTO_WB] == 0.0


@pytest.mark.parametrize(
    ("stubborn", "settings", "word"),
    [
        ((cv2.CAP_PROP_AUTO_WB,), {}, "automatic white_balance_k stays on"),
        ((cv2.CAP_PROP_EXPOSURE,), {"exposure": 90.0}, "exposure is 156, expected 90"),
        ((), {"focus": 30.0}, "focus is -1, expected 30"),
    ],
)
def test_settings_that_do_not_stay_are_an_error(stubborn, settings, word):
    with pytest.raises(RobotError, match=word):
        lock_controls(Device(stubborn), UvcOptions(device="0", **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"device": "0", "url": "http://a/b"},
        {"url": "rtsp://a/b"},
        {"url": "http://a/b", "exposure": 3.0},
        {"device": "0", "latency_s": 2.0},
        {"device": "0", "size": (640, 480), "crop": (0, 0, 641, 480)},
    ],
)
def test_options_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError):
        UvcOptions(**settings)


def test_ten_identical_pictures_are_frozen_and_one_pixel_of_noise_is_not(rng):
    watch = FrozenWatch()
    still = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    for number in range(1, 11):
        watch.see(still)
        assert watch.frozen == (number == 10)
    noisy = still.copy()
    noisy[0, 0, 0] ^= 1
    watch.see(noisy)
    assert not watch.frozen


def test_the_hash_of_settings_changes_with_any_of_them():
    assert settings_hash({"exposure": 1, "focus": 2}) == settings_hash({"focus": 2, "exposure": 1})
    assert settings_hash({"exposure": 1, "focus": 2}) != settings_hash({"exposure": 1, "focus": 3})


@pytest.mark.realtime
def test_a_closed_server_refuses_and_an_idle_one_draws_nothing():
    drawn = []

    def draw():
        drawn.append(1)
        return np.full((64, 64, 3), 128, np.uint8)

    with MjpegServer(draw, fps=50.0) as server:
        time.sleep(0.2)
        assert not drawn
        camera = DRIVER.open(UvcOptions(url=server.url))
        camera.start(10.0)
        server.fault = CameraFault(close=True)
        eventually(lambda: camera.latest(0.5), StaleFrame)
        camera.stop()
        with pytest.raises(RobotError):
            camera.start(3.0)
        assert drawn


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("freeze\n", CameraFault(freeze=True)),
        ("exposure 1.5", CameraFault(exposure=1.5)),
        ("shift 30", CameraFault(shift_px=30)),
        ("none", CameraFault()),
    ],
)
def test_faults_are_said_in_words(line, fault):
    assert parse_fault(line) == fault


@pytest.mark.parametrize("line", ["melt", "exposure much", "shift"])
def test_unknown_faults_are_refused(line):
    with pytest.raises(ConfigError):
        parse_fault(line)
