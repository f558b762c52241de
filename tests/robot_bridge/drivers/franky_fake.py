"""What the Franka driver uses of franky, where that is not installed: types, an arm that answers, a hand."""

import math
from types import SimpleNamespace

HAND = (0.0, 0.0, math.sin(-math.pi / 8), math.cos(-math.pi / 8))
"""The turn by -45 degrees about z of a Franka Hand that is set up in Desk as the vendor has it."""


class FrankyError(Exception):
    pass


class Future:
    def __init__(self, result):
        self.result = result

    def wait(self, timeout):
        return self.result is not None

    def get(self):
        return self.result


class Hand:
    """A hand that tells the greatest width that it found by homing; ``orders`` is what it was told."""

    def __init__(self, width_m=0.04, max_width_m=0.0, found_m=0.08, homes=True):
        self.state = SimpleNamespace(width=width_m, max_width=max_width_m, is_grasped=False)
        self.orders, self._found_m, self._homes = [], found_m, homes

    def homing_async(self):
        self.orders.append("homing")
        self.state.max_width = self._found_m
        return Future(self._homes)

    def move_async(self, width, speed):
        self.orders.append(("move", width))
        self.state.width = width
        return Future(True)

    def grasp_async(self, width, speed, force, inner, outer):
        self.orders.append(("grasp", width))
        self.state.width = width
        return Future(True)

    def stop(self):
        self.orders.append("stop")


def end_effector(position_m=(0.0, 0.0, 0.1034), quaternion_xyzw=HAND):
    return SimpleNamespace(translation=position_m, quaternion=quaternion_xyzw)


def franky(hand=None):
    """Returns the module."""
    return SimpleNamespace(
        Exception=FrankyError,
        NetworkException=FrankyError,
        Gripper=lambda host: hand,
        RealtimeConfig=SimpleNamespace(Enforce=1, Ignore=2),
    )
