"""A person at the controls: demonstrations from a keyboard or a gamepad, and taking over from a policy."""

from robot_bridge.teleop.device import HOLD, Command, Device
from robot_bridge.teleop.gamepad import Gamepad, GamepadMap
from robot_bridge.teleop.keyboard import Keyboard
from robot_bridge.teleop.policy import TakeoverPolicy, TeleopPolicy

__all__ = [
    "HOLD",
    "Command",
    "Device",
    "Gamepad",
    "GamepadMap",
    "Keyboard",
    "TakeoverPolicy",
    "TeleopPolicy",
]
