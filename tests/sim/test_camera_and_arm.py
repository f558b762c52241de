"""The camera shows the cell where ``CameraConfig.projection`` says; the joints hold the tool where they should."""

import numpy as np
import pytest

from qtopt.config import CameraConfig
from robot_bridge import CellConfig, ToolPose
from sim.arm import HAND_LENGTH_M, joint_angles, link_mesh, link_poses
from sim.bullet import bullet
from sim.furniture import BIN_CENTRE_M, BIN_HALF_M
from sim.hand import MAX_WIDTH_M


def corners(low, high):
    return np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])


def project(camera, points):
    pixels = np.hstack([points, np.ones((len(points), 1))]) @ camera.projection().T
    return pixels[:, :2] / pixels[:, 2:]


def test_a_ball_appears_where_the_projection_says(cell):
    client = cell.world.client
    place = np.array([0.66, -0.05, 0.06])
    red = bullet.createVisualShape(bullet.GEOM_SPHERE, radius=0.012, rgbaColor=(1, 0, 0, 1), physicsClientId=client)
    bullet.createMultiBody(0.0, -1, red, place.tolist(), physicsClientId=client)
    frame = cell.camera.capture().astype(int)
    mask = (frame[..., 0] > 90) & (frame[..., 1] < 30) & (frame[..., 2] < 30)
    rows, columns = np.nonzero(mask)
    assert len(rows) >= 4
    seen = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
    np.testing.assert_allclose(seen, project(CameraConfig(), place[None])[0], atol=0.8)


def test_bin_and_tool_stay_in_the_cropped_image():
    camera, limits = CameraConfig(), CellConfig().limits
    x, y = BIN_CENTRE_M
    reachable = corners((*limits.low_m[:2], limits.low_m[2]), (*limits.high_m[:2], 0.20))
    assert np.all((project(camera, reachable) > 4) & (project(camera, reachable) < camera.size_px - 4))
    whole = corners((x - BIN_HALF_M, y - BIN_HALF_M, 0.0), (x + BIN_HALF_M, y + BIN_HALF_M, 0.0))
    assert np.all((project(camera, whole) > 0) & (project(camera, whole) < camera.size_px))


def test_the_hand_is_seen_where_it_is(cell):
    cell.hand.place(ToolPose(0.6, 0.0, 0.15, 0.0), MAX_WIDTH_M)
    here = cell.camera.capture()
    cell.hand.place(ToolPose(0.6, 0.0, 0.15, 0.8), MAX_WIDTH_M)
    turned = cell.camera.capture()
    assert np.any(here != turned)
    assert here.flags.owndata
    assert here.shape == (72, 72, 3)


def test_joints_hold_the_tool_anywhere_in_the_workspace(rng):
    limits = CellConfig().limits
    for _ in range(200):
        x, y, z = rng.uniform(limits.low_m, limits.high_m)
        yaw = rng.uniform(-limits.yaw_rad, limits.yaw_rad)
        flange = link_poses(joint_angles(ToolPose(x, y, z, yaw)))[7]
        np.testing.assert_allclose((flange @ [0, 0, 0.045 + HAND_LENGTH_M, 1])[:3], [x, y, z], atol=1e-9)
        np.testing.assert_allclose(flange[:3, 2], [0, 0, -1], atol=1e-9)
        assert abs(flange[0, 0] * np.sin(yaw) - flange[1, 0] * np.cos(yaw)) < 1e-9


def test_thinned_links_keep_their_size():
    for number in (3, 7):
        fine, coarse = (np.array(link_mesh(number, cell)[0]) for cell in (0.001, 0.022))
        np.testing.assert_allclose(np.ptp(coarse, axis=0), np.ptp(fine, axis=0), atol=0.03)
        assert len(coarse) < len(fine) / 2


def test_closing_the_world_twice_is_no_error(cell):
    cell.world.close()
    cell.world.close()
    assert cell.world.client == pytest.approx(-1)
