"""A network camera: an MJPEG stream over HTTP of whatever a function draws, with the faults of real ones.

``python -m sim.servers.mjpeg`` serves a moving test picture, prints the stream's address, and takes faults as lines of
text on its standard input: ``freeze``, ``stall``, ``black``, ``exposure 1.4``, ``shift 30``, ``close``, ``none``.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

from qtopt.errors import ConfigError
from qtopt.types import UInt8Array
from sim.servers.loopback import require_loopback

_BOUNDARY = "qtoptframe"
_QUALITY = 90


@dataclass(frozen=True, slots=True)
class CameraFault:
    """What is wrong with the camera.

    Attributes:
        freeze: the same bytes again and again.
        stall: the connection stays open and nothing comes.
        black: pictures of nothing.
        exposure: brightness is multiplied by this.
        shift_px: the picture moves right by so many pixels: somebody bumped into the camera.
        close: connections are cut, new ones refused.
    """

    freeze: bool = False
    stall: bool = False
    black: bool = False
    exposure: float = 1.0
    shift_px: int = 0
    close: bool = False


class MjpegServer:
    """Serves ``/stream`` until closed; may be used in a ``with`` statement.

    Args:
        image: draws a picture, RGB uint8 (H, W, 3); called by the server's thread while somebody watches.
        fps: pictures a second.
        host: address to listen on.
        port: 0 takes a free one.
        noise: standard deviation of the sensor's noise [grey levels]. Without noise two pictures of a still scene are
            the same bytes, and a driver must take the camera for frozen.
        seed: of the noise.
    """

    def __init__(
        self,
        image: Callable[[], UInt8Array],
        fps: float = 30.0,
        host: str = "127.0.0.1",
        port: int = 0,
        noise: float = 1.5,
        seed: int = 0,
    ) -> None:
        self.fault = CameraFault()
        self._image, self._period_s, self._noise = image, 1.0 / fps, noise
        self._rng = np.random.default_rng(seed)
        self._news = threading.Condition()
        self._jpeg, self._number, self._watchers = b"", 0, 0
        self._closing = threading.Event()
        self._http = _Http((require_loopback(host), port), _Handler)
        self._http.camera = self
        self._threads = [
            threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True),
            threading.Thread(target=self._draw, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "MjpegServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Address of the stream."""
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}/stream"

    def close(self) -> None:
        """Ends every stream and frees the port; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        for thread in self._threads:
            thread.join(5.0)

    def parts(self, wanted: Callable[[], bool]) -> "_Parts":
        """Returns an iterator over new JPEG pictures for one watcher, until ``wanted`` says no."""
        return _Parts(self, wanted)

    def _draw(self) -> None:
        due = time.monotonic()
        while not self._closing.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._period_s, time.monotonic())
            fault = self.fault
            if not self._watchers or fault.stall or fault.close:
                continue
            jpeg = self._jpeg if fault.freeze and self._jpeg else self._encode(fault)
            with self._news:
                self._jpeg = jpeg
                self._number += 1
                self._news.notify_all()

    def _encode(self, fault: CameraFault) -> bytes:
        picture = spoil(self._image(), fault, self._noise, self._rng)
        parameters = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        return cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)[1].tobytes()


def spoil(picture: UInt8Array, fault: CameraFault, noise: float, rng: np.random.Generator) -> UInt8Array:
    """Returns a picture as a camera with a fault and ``noise`` [grey levels] delivers it."""
    if fault.shift_px:
        picture = np.roll(picture, fault.shift_px, axis=1)
    light = np.zeros(picture.shape, np.float32) if fault.black else picture.astype(np.float32) * fault.exposure
    if noise:
        light += rng.normal(0.0, noise, picture.shape).astype(np.float32)
    return np.asarray(np.clip(light + 0.5, 0.0, 255.0), np.uint8)


class _Parts:
    """Pictures for one watcher; None when a while has passed without any, so that the watcher can look around."""

    def __init__(self, server: MjpegServer, wanted: Callable[[], bool]) -> None:
        self._server, self._wanted, self._seen = server, wanted, server._number

    def __enter__(self) -> "_Parts":
        with self._server._news:
            self._server._watchers += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._server._news:
            self._server._watchers -= 1

    def __iter__(self) -> "_Parts":
        return self

    def __next__(self) -> bytes:
        server = self._server
        while self._wanted():
            with server._news:
                if server._news.wait_for(lambda: server._number != self._seen, timeout=0.1):
                    self._seen = server._number
                    return server._jpeg
        raise StopIteration


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    camera: MjpegServer


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def do_GET(self) -> None:
        camera = self.server.camera
        if camera.fault.close or self.path != "/stream":
            self.send_error(503 if camera.fault.close else 404)
            return
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.end_headers()

        def wanted() -> bool:
            return not (camera._closing.is_set() or camera.fault.close)

        try:
            with camera.parts(wanted) as parts:
                for jpeg in parts:
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
        except OSError:
            pass  # the watcher went away
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def parse_fault(line: str) -> CameraFault:
    """Returns the fault that a line of text names; raises ConfigError for any other."""
    word, _, number = line.strip().partition(" ")
    try:
        if word in ("freeze", "stall", "black", "close"):
            return CameraFault(**{word: True})
        if word in ("exposure", "shift"):
            return CameraFault(exposure=float(number)) if word == "exposure" else CameraFault(shift_px=int(number))
    except ValueError as error:
        raise ConfigError(f"fault {line.strip()!r}: {error}") from error
    if word in ("", "none"):
        return CameraFault()
    raise ConfigError(f"fault is {word!r}, expected freeze, stall, black, exposure N, shift N, close or none")


def moving_picture(width: int, height: int, clock: Callable[[], float] = time.monotonic) -> Callable[[], UInt8Array]:
    """Returns a function that draws a square that circles over a grey ramp once in four seconds."""
    ramp = np.linspace(60, 190, width, dtype=np.uint8)
    ground = np.repeat(np.repeat(ramp[None, :, None], height, 0), 3, 2)

    def draw() -> UInt8Array:
        picture = ground.copy()
        angle = clock() * np.pi / 2
        x, y = width / 2 + width / 4 * np.cos(angle), height / 2 + height / 4 * np.sin(angle)
        cv2.rectangle(picture, (round(x) - 15, round(y) - 15), (round(x) + 15, round(y) + 15), (200, 60, 40), -1)
        return picture

    return draw


def main() -> None:
    """Serves the test picture until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--size", type=int, nargs=2, default=(320, 240))
    given = parser.parse_args()
    with MjpegServer(moving_picture(*given.size), given.fps, given.host, given.port) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        for line in sys.stdin:
            server.fault = parse_fault(line)


if __name__ == "__main__":
    main()
