"""A trainer and an updater beside a drill's server: the real programs with a small network."""

import time
from pathlib import Path
from typing import Final

from qtopt.agent.cem import CemConfig
from qtopt.agent.images import ImageConfig
from qtopt.agent.learner import LearnerConfig
from qtopt.agent.network import NetworkConfig
from qtopt.apps import label, train
from qtopt.apps.drills.processes import Processes
from qtopt.config import CameraConfig
from qtopt.loops.checkpoints import all_checkpoints
from qtopt.loops.label import LabelLoopConfig
from qtopt.loops.train import TrainLoopConfig
from qtopt.rpc import ClientConfig, Connection

_WAIT_S: Final = 60.0


class Learning:
    """Starts both; they go on by themselves whatever becomes of the server.

    Args:
        root: where checkpoints and logs lie.
        address: of the server, ``host:port``.
        image_px: size of the images [px].
    """

    def __init__(self, root: Path, address: str, image_px: int) -> None:
        self._checkpoints = root / "checkpoints"
        self._processes = Processes(root / "logs")
        server = ClientConfig(address, connect_timeout_s=120.0, call_timeout_s=5.0)
        image = ImageConfig(stored_px=image_px, crop_px=image_px - 8)
        network = NetworkConfig(image=image, camera=CameraConfig(size_px=image_px), width=16)
        trainer = train.Config(
            server=server,
            checkpoints=self._checkpoints,
            learner=LearnerConfig(network=network, batch=16),
            loop=TrainLoopConfig(publish_every_s=1.0, checkpoint_every_s=0.5),
        )
        cem = CemConfig(samples=8, elites=2, iterations=1)
        updater = label.Config(server=server, cem=cem, loop=LabelLoopConfig(batch_size=32))
        self._processes.start("trainer", train.main, trainer, nice=5)
        self._processes.start("updater", label.main, updater, nice=5)

    def step(self) -> int:
        """Returns the gradient step of the newest checkpoint; 0 before the first."""
        finished = all_checkpoints(self._checkpoints) if self._checkpoints.exists() else []
        return int(finished[-1].name) if finished else 0

    def expect_steps(self) -> list[str]:
        """Waits until the trainer has made a step more; returns, in words, what is wrong."""
        before, deadline = self.step(), time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            if died := self._processes.died():
                return died
            if self.step() > before:
                return []
            time.sleep(0.1)
        return [f"the trainer made no step after {before} within {_WAIT_S:g} s"]

    def expect_publication(self, connection: Connection) -> list[str]:
        """Waits until networks of a step not yet made are published; returns, in words, what is wrong."""
        before, deadline = self.step(), time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            if died := self._processes.died():
                return died
            newest = connection.model.latest()
            if newest is not None and newest.step > before:
                return []
            time.sleep(0.1)
        return [f"no networks after step {before} were published within {_WAIT_S:g} s"]

    def told(self) -> dict[str, int]:
        """Returns how often the trainer said that networks are not published, and that they are again."""
        said = self._processes.log("trainer").read_text(errors="replace")
        return {
            "said_not_published": said.count("networks are not published; trying again"),
            "said_published_again": said.count("no longer: networks are not published"),
        }

    def end(self) -> list[str]:
        """Tells both to end; returns, in words, which did not do so properly."""
        return self._processes.died() + self._processes.stop(["trainer", "updater"])
