"""Success detection of physical cells: the fingers' width, the drop test, and what calibrates them."""

from robot_bridge.success.detector import DropTestDetector
from robot_bridge.success.keeper import PhysicalBin
from robot_bridge.success.staged import GraspVerdict, Judgement, Stage, StagedJudge

__all__ = ["DropTestDetector", "GraspVerdict", "Judgement", "PhysicalBin", "Stage", "StagedJudge"]
