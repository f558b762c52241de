"""The judge over the real simulator: physics lets objects fall, a bad camera looks, the simulator knows the truth."""

import dataclasses

import pytest

from robot_bridge import CellConfig, ToolPose
from robot_bridge.success import DropTestDetector, Judgement
from robot_bridge.success.calibrate import blob_threshold
from robot_bridge.success.images import compare, median_picture
from tests.robot_bridge.success.simulated import (
    CLEAR_POSE,
    NO_WAITING,
    BadCamera,
    Defects,
    bin_region,
    simulated_cell,
)

BASE = dataclasses.replace(NO_WAITING, bin_region=bin_region())


def calibrated(camera, pairs=50):
    """Learns the thresholds as ``calibrate success`` does: pairs of pictures of an untouched bin."""
    changes = []
    for _ in range(pairs):
        before, after = (median_picture([camera.capture() for _ in range(5)]) for _ in range(2))
        changes.append(compare(before, after, BASE))
    area, control = (
        blob_threshold([getattr(change, name) for change in changes]) for name in ("area_px", "control_px")
    )
    return dataclasses.replace(BASE, diff_area_px=area, control_area_px=control)


class Grasps:
    """Grasps in the simulator that hold, or do not, and what the judge says of them."""

    def __init__(self, seed=0):
        self.cell = simulated_cell(seed)
        self.cell.environment.start_episode(seed)
        self.robot, self.camera = self.cell.environment._robot, BadCamera(self.cell)
        self.robot.move(CLEAR_POSE)
        config = dataclasses.replace(calibrated(self.camera), drop_test="always")
        self.detector = DropTestDetector(
            self.robot, self.camera, config, CellConfig(), CLEAR_POSE, sleep=lambda _: self.cell.world.settle(240)
        )

    def grasp(self, *, aside_m=0.0):
        """Closes over the highest object, or beside it, and rises; returns whether the fingers hold something."""
        world = self.cell.world
        self.cell.environment.start_episode(None)
        x, y, z = max((world.position(body) for body in world.objects), key=lambda place: place[2])
        self.robot.move(ToolPose(x + aside_m, y, 0.2, 0.0))
        self.robot.move(ToolPose(x + aside_m, y, max(z - 0.01, 0.005), 0.0))
        self.robot.grip(close=True)
        self.robot.move(ToolPose(x + aside_m, y, 0.22, 0.0))
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


@pytest.mark.serial
def test_verdicts_agree_with_the_simulator_and_defects_are_unknown():
    grasps = Grasps()
    try:
        rows = compared(grasps, 10)
        decided = [(truth, verdict.held) for truth, verdict in rows if verdict.held is not None]
        assert len(decided) >= 8
        assert all(truth == held for truth, held in decided)
        assert {truth for truth, _ in decided} == {True, False} or all(truth for truth, _ in decided)
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
