"""Who acts on a cell: the script, the server, an exported network, a person, or a person over one of the others."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from qtopt.agent.exploration import ScriptedPolicy
from qtopt.apps.process import logger
from qtopt.apps.robot import Collect
from qtopt.apps.robot.served import ServedPolicy
from qtopt.errors import CheckpointError
from qtopt.exported import read_manifest
from qtopt.interfaces import Policy
from qtopt.loops.collect import Follower
from qtopt.rpc.connection import Connection
from qtopt.types import ModelSnapshot
from robot_bridge.cell_file import CellFile, cell_config
from robot_bridge.onnx_policy import OnnxPolicy
from robot_bridge.teleop import Device, Gamepad, Keyboard, TakeoverPolicy, TeleopPolicy


class _Nothing:
    """Has no networks: the first policy stays."""

    def latest(self, newer_than: int = 0) -> ModelSnapshot | None:
        """Returns None."""
        return None


class _Exports:
    """The policy in a directory, and those that are exported into it later; a ``ModelSource``.

    Its version is the number of gradient steps behind it.

    Args:
        directory: what ``qtopt export`` wrote, and may write again.
        load: makes the policy of what is there; raises CheckpointError where that is not whole.
    """

    def __init__(self, directory: Path, load: Callable[[], OnnxPolicy]) -> None:
        self._directory, self._load = directory, load
        self.policy = load()
        self._told = False

    def latest(self, newer_than: int = 0) -> ModelSnapshot | None:
        """Returns what is said of the policy that is there now, where that is another than the one told of last."""
        taken = self.policy.manifest
        try:
            if read_manifest(self._directory).policy_sha256 != taken.policy_sha256:
                self.policy = self._load()
        except CheckpointError as error:  # looked at again before the next episode
            logger().warning("the export that came is not whole; the policy before it goes on acting", error=str(error))
        manifest = self.policy.manifest
        if self._told and manifest is taken:
            return None
        self._told = True
        return ModelSnapshot(max(manifest.step, newer_than + 1), manifest.step, b"", manifest.policy_sha256)


def open_device(config: Collect, parts: contextlib.ExitStack) -> Device | None:
    """Returns what a person steers with, closed with ``parts``; None for nobody. Raises RobotError without it."""
    if config.teleop == "none":
        return None
    device: Device = Keyboard() if config.teleop == "keyboard" else Gamepad(config.gamepad)
    parts.callback(device.close)
    return device


def choose(
    config: Collect, cell: CellFile, remote: Connection, device: Device | None
) -> tuple[Policy, Follower[Policy]]:
    """Returns who acts first, and who gives newer policies between episodes.

    Raises:
        ConfigError: ONNX Runtime is not installed.
        CheckpointError: the exported network cannot be read.
    """
    limits = cell_config(cell).limits
    # The monitor takes a policy that is silent for longer than ``policy_home_s`` for gone, a person, too.
    wait_s = cell.watchdog.policy_home_s / 3
    if config.policy == "person" and device is not None:
        return _always(TeleopPolicy(device, limits, wait_s=wait_s))

    def with_person(policy: Policy) -> Policy:
        if device is None:
            return policy
        return TakeoverPolicy(policy, device, limits, wait_s=wait_s, deadline_s=cell.watchdog.policy_hold_s)

    source = {"cell": cell.policy.source, "scripted": "scripted", "learned": "remote"}[config.policy]
    scripted = ScriptedPolicy()
    if source == "scripted":
        return _always(with_person(scripted))
    if source == "remote":
        served = with_person(ServedPolicy(remote.policy(), scripted, cell.watchdog.policy_hold_s))

        def build(snapshot: ModelSnapshot) -> Policy:
            del snapshot  # the server acts with its own copy; the version is what is followed
            return served

        return with_person(scripted), Follower(remote.model, build)
    directory = Path(source.removeprefix("onnx:"))
    exported = _Exports(directory, lambda: OnnxPolicy(directory, deadline_s=cell.watchdog.policy_hold_s))
    return with_person(exported.policy), Follower(exported, lambda _: with_person(exported.policy))


def _always(policy: Policy) -> tuple[Policy, Follower[Policy]]:
    return policy, Follower(_Nothing(), lambda _: policy)
