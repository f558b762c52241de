"""What every camera does; the classes live where other packages can import them."""

from robot_bridge.conformance.camera import CameraContract

__all__ = ["CameraContract"]
