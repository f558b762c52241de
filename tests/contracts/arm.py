"""What every arm does; the classes live where other packages can import them."""

from robot_bridge.conformance.arm import ArmContract

__all__ = ["ArmContract"]
