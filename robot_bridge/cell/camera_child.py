"""A camera's process: it holds the camera's library and keeps the newest frame in shared memory.

It ends when the camera fails; the collector decides whether another one is started.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

from qtopt.errors import RobotError
from robot_bridge import registry
from robot_bridge.cell import parts
from robot_bridge.cell.channel import Channel, ChannelClosed
from robot_bridge.cell.pictures import PictureRing
from robot_bridge.contracts import Camera

_START_S: Final = 10.0
_STALE_S: Final = 1.0
_EXIT_CAMERA: Final = 5


def _serve(camera: Camera, channel: Channel, handle: socket.socket) -> None:
    camera.start(_START_S)
    try:
        settings: Any = dict(camera.lock_settings())
    except RobotError as error:
        settings = str(error)
    frame = camera.latest(_STALE_S)
    ring = PictureRing(frame.rgb.nbytes)
    socket.send_fds(handle, [b"!"], [ring.fd])
    flags = sorted(camera.capabilities)
    channel.send({"ready": True, "bytes": frame.rgb.nbytes, "settings": settings, "capabilities": flags})
    while True:
        ring.write(frame)
        frame = camera.latest(_STALE_S, frame.t_capture_ns + 1)
        if channel.receive(0.0) is not None:
            return


def main(settings: dict[str, Any]) -> int:
    """Runs the process; ``settings`` name the cell file, the camera and the descriptors passed on."""
    logging.basicConfig(level=logging.WARNING, format="camera: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cell = parts.load(Path(settings["cell"]), settings["hash"])
    channel, handle = Channel.from_fd(settings["collector"]), socket.socket(fileno=settings["handle"])
    name = settings["camera"]
    try:
        driver = registry.camera_driver(cell.cameras[name].driver)
        camera = driver.open(registry.driver_options(driver, cell.cameras[name], f"[camera.{name}]"))
        try:
            _serve(camera, channel, handle)
        finally:
            camera.stop()
    except ChannelClosed:
        return 0
    except Exception as error:  # a vendor's library may raise anything; the collector gets to know
        with contextlib.suppress(ChannelClosed):
            channel.send({"failed": str(error) or type(error).__name__})
            time.sleep(0.0)
        return _EXIT_CAMERA
    return 0


if __name__ == "__main__":
    code = main(json.loads(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)
