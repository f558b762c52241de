"""What every gripper does; the classes live where other packages can import them."""

from robot_bridge.conformance.gripper import GripperContract

__all__ = ["GripperContract"]
