"""A simulated cell's camera, in its own process: ``python -m sim.servers.camera`` prints its stream's address.

Lines on standard input say what it sees, ``scene {...}`` as ``sim.mirror`` writes it, or what is wrong with it, such as
``fault freeze``; the process ends with its input. ``SceneCamera`` is the other end.
"""

import argparse
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Final

from qtopt.config import CameraConfig
from qtopt.errors import RobotError
from qtopt.types import UInt8Array
from sim.mirror import Mirror, Scene
from sim.plant import Plant
from sim.servers.mjpeg import MjpegServer, parse_fault

LATENCY_S: Final = 0.1
"""How old what a picture shows may be when it arrives: a scene waits to be drawn, and drawing takes its time."""
_SCENE_S: Final = 0.02
_END_S: Final = 5.0


@dataclass
class _Newest:
    """The newest scene and what draws it."""

    mirror: Mirror
    scene: Scene

    def draw(self) -> UInt8Array:
        """Draws it."""
        return self.mirror.draw(self.scene)


class SceneCamera:
    """Starts the camera's process and tells it what a plant looks like, fifty times a second.

    Args:
        plant: running.
        camera: size and place.
        fps: pictures a second.
        host: a loopback address.
        object_scale: size of the objects against their files' own.

    Attributes:
        url: of the stream.
        process_id: of the camera's process.
    """

    def __init__(
        self, plant: Plant, camera: CameraConfig, fps: float, host: str = "127.0.0.1", object_scale: float = 1.0
    ) -> None:
        words = ["--host", host, "--fps", str(fps), "--size", str(camera.size_px), "--scale", str(object_scale)]
        self._plant = plant
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sim.servers.camera", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.process_id = self._process.pid
        self._writing, self._closing = threading.Lock(), threading.Event()
        self._send(f"scene {plant.scene().to_json()}")
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self._process.wait(_END_S)
            raise RobotError("the simulated camera's process ended before it listened; its words are above")
        self._thread = threading.Thread(target=self._tell, name="scenes", daemon=True)
        self._thread.start()

    def __enter__(self) -> "SceneCamera":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spoil(self, fault: str) -> None:
        """Makes the camera fail: see ``sim.servers.mjpeg.parse_fault``; ``none`` mends it."""
        parse_fault(fault)
        self._send(f"fault {fault}")

    def close(self) -> None:
        """Ends the process; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self) -> None:
        while not self._closing.wait(_SCENE_S) and self._process.poll() is None:
            try:
                self._send(f"scene {self._plant.scene().to_json()}")
            except (OSError, RobotError):
                return  # the camera's process or the plant has ended

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with self._writing:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def main() -> None:
    """Draws what standard input says until it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    first = Scene.from_json(sys.stdin.readline().removeprefix("scene "))
    newest = _Newest(Mirror(CameraConfig(size_px=given.size), given.scale), first)
    with MjpegServer(newest.draw, given.fps, given.host) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        for line in sys.stdin:
            kind, _, rest = line.partition(" ")
            if kind == "scene":
                newest.scene = Scene.from_json(rest)
            else:
                server.fault = parse_fault(rest)


if __name__ == "__main__":
    main()
