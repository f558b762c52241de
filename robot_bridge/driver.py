"""What a package that brings a driver exports: how to make it, and from which table of the cell file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtopt.errors import NotReady
from robot_bridge.contracts import Arm, Camera, Gripper, StopChannel

ARM_DRIVERS = "robot_bridge.arms"
GRIPPER_DRIVERS = "robot_bridge.grippers"
CAMERA_DRIVERS = "robot_bridge.cameras"
"""Entry-point groups; each entry names a driver object of the kind below."""


def require_serial(expected: str, found: str, host: str) -> None:
    """Raises NotReady where the arm at an address is not the one of the cell file; with ``expected`` empty any is."""
    if expected and found != expected:
        raise NotReady(
            f"the arm at {host} has the serial number {found}, expected {expected}: see whether the address is this "
            "cell's, or put the new arm's serial number into the cell file"
        )


@dataclass(frozen=True, slots=True)
class ArmDriver:
    """How to make an arm from its table in the cell file; imported without its vendor's library.

    Attributes:
        options: the frozen configuration dataclass of the ``[arm]`` table, ``driver`` left out.
        open: makes an unconnected ``Arm``; imports the vendor's library. Called in a child process.
        open_stop_channel: makes an unconnected ``StopChannel``; called in the safety process.
        extra: what to install, as in ``pip install '.[extra]'``; empty for nothing.
        differences: asks the controller, without motion and before a driver sets its own, for its tool point and
            payload; returns what is not as in the options, in words. Raises RobotError where it cannot tell. None for a
            driver that looks itself, or whose controller has none.
    """

    options: type
    open: Callable[[Any], Arm]
    open_stop_channel: Callable[[Any], StopChannel]
    extra: str = ""
    differences: Callable[[Any], tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True)
class GripperDriver:
    """How to make a gripper.

    Attributes:
        options: the frozen configuration dataclass of the ``[gripper]`` table.
        open: makes an unconnected ``Gripper`` in the arm's process; some share the arm's own connection.
        extra: what to install.
    """

    options: type
    open: Callable[[Any, Arm], Gripper]
    extra: str = ""


@dataclass(frozen=True, slots=True)
class CameraDriver:
    """How to make a camera: options of a ``[camera.NAME]`` table, its maker, and what to install."""

    options: type
    open: Callable[[Any], Camera]
    extra: str = ""
