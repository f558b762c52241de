"""Who acts on a cell: the script, the server, an exported network, a person, or a person over one of the others."""

import contextlib
from pathlib import Path

from qtopt.agent.exploration import ScriptedPolicy
from qtopt.apps.robot import Collect
from qtopt.apps.robot.served import ServedPolicy
from qtopt.errors import ConfigError
from qtopt.interfaces import Policy
from qtopt.loops.collect import Follower
from qtopt.rpc.connection import Connection
from qtopt.types import ModelSnapshot
from robot_bridge.cell_file import CellFile, cell_config
from robot_bridge.teleop import Device, Gamepad, Keyboard, TakeoverPolicy, TeleopPolicy


class _Nothing:
    """Has no networks: the first policy stays."""

    def latest(self, newer_than: int = 0) -> ModelSnapshot | None:
        """Returns None."""
        return None


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
        return policy if device is None else TakeoverPolicy(policy, device, limits, wait_s=wait_s)

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
    return _always(with_person(_exported(Path(source.removeprefix("onnx:")), cell)))


def _always(policy: Policy) -> tuple[Policy, Follower[Policy]]:
    return policy, Follower(_Nothing(), lambda _: policy)


def _exported(directory: Path, cell: CellFile) -> Policy:
    """Returns the exported network's policy; what it chooses too late is a hold."""
    try:
        from robot_bridge.onnx_policy import OnnxPolicy
    except ImportError as error:
        raise ConfigError(f"an exported policy needs ONNX Runtime: pip install 'qtopt[onnx]' ({error})") from error
    return OnnxPolicy(directory, deadline_s=cell.watchdog.policy_hold_s)
