"""The robot side: the interfaces of a cell and the one grasping environment over them. No torch, no zarr, no gRPC."""

from robot_bridge.config import CellConfig, MotionLimits
from robot_bridge.grasp_env import GraspEnv
from robot_bridge.robot import BinKeeper, ImageSource, Robot, RobotState, SuccessDetector, ToolPose

__all__ = [
    "BinKeeper",
    "CellConfig",
    "GraspEnv",
    "ImageSource",
    "MotionLimits",
    "Robot",
    "RobotState",
    "SuccessDetector",
    "ToolPose",
]
