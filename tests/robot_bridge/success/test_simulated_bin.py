"""The judge over the real simulator: physics lets objects fall, a bad camera looks, the simulator knows the truth."""

import dataclasses

import pytest

from qtopt.config import CameraConfig
from robot_bridge import CellConfig, ToolPose
from robot_bridge.success import DropTestDetector, Judgement
from sim.region import bin_region
from tests.robot_bridge.success.simulated import (
    CLEAR_M,
    NO_WAITING,
    SIZE_PX,
    BadCamera,
    Defects,
    simulated_cell,
)

BASE = dataclasses.replace(NO_WAITING, bin_region=bin_region(CameraConfig(size_px=SIZE_PX)))


class Grasps:
    """Grasps in the simulator that hold, or do not, and what the judge says of them."""

    def __init__(self, seed=0):
        self.cell = simulated_cell(seed)
        self.cell.environment.start_episode(seed)
        self.robot, self.camera = self.cell.environment._robot, BadCamera(self.cell)
        self.robot.move(ToolPose(*CLEAR_M, 0.0))
        config = dataclasses.replace(BASE, drop_test="always", frames=3)
        self.detector = DropTestDetector(
            self.robot, self.camera, config, CellConfig(), CLEAR_M, sleep=lambda _: self.cell.world.settle(240)
        )

    def grasp(self):
        """Closes over the highest object and rises; returns whether the fingers hold something."""
        world = self.cell.world
        self.cell.environment.start_episode(None)
        x, y, z = max((world.position(body) for body in world.objects), key=lambda place: place[2])
        self.robot.move(ToolPose(x, y, 0.2, 0.0))
        self.robot.move(ToolPose(x, y, max(z - 0.01, 0.005), 0.0))
        self.robot.grip(close=True)
        self.robot.move(ToolPose(x, y, 0.22, 0.0))
        return self.cell.hand.held() is not None

    def close(self):
        self.cell.environment.close()


def compared(grasps, count):
    """Returns (truth, verdict) of ``count`` grasps."""
    rows = []
    for _ in range(count):
        truth = grasps.grasp()
        grasps.detector.judge()
        rows.append((truth, grasps.detector.take_verdict()))
    return rows


@pytest.mark.realtime
@pytest.mark.drill
@pytest.mark.timeout(400)
def test_verdicts_agree_with_the_simulator_and_defects_are_unknown():
    grasps = Grasps()
    try:
        rows = compared(grasps, 5)
        decided = [(truth, verdict.held) for truth, verdict in rows if verdict.held is not None]
        assert len(decided) >= 3
        assert all(truth == held for truth, held in decided)
        assert any(truth for truth, _ in decided)
        for defects in (Defects(exposure=1.4), Defects(shift_px=30)):
            grasps.camera.defects = Defects()
            grasps.grasp()
            put_back = grasps.detector.put_back

            def put_back_and_break(put_back=put_back, defects=defects):
                put_back()
                grasps.camera.defects = defects

            grasps.detector.put_back = put_back_and_break
            grasps.detector.judge()
            grasps.detector.put_back = put_back
            assert grasps.detector.take_verdict().judgement is Judgement.UNKNOWN
    finally:
        grasps.close()
