"""The UR5e of the simulated controller."""

import numpy as np
import pytest

from sim.servers.ur_arm import flange_pose, joint_solutions, nearest_solution


def test_stretched_out_it_reaches_as_far_as_the_data_sheet_says():
    """At zero the arm lies along minus x: reach and heights are sums of the table's lengths, added by hand."""
    pose = flange_pose(np.zeros(6))
    np.testing.assert_allclose(pose[:3, 3], (-0.8172, -0.2329, 0.0628), atol=1e-9)


def test_every_solution_leads_back_and_one_of_them_is_the_start():
    rng = np.random.default_rng(0)
    for joints in rng.uniform(-2.5, 2.5, (50, 6)):
        pose = flange_pose(joints)
        found = joint_solutions(pose)
        for each in found:
            np.testing.assert_allclose(flange_pose(each), pose, atol=1e-7)
        assert min(np.abs(np.angle(np.exp(1j * (each - joints)))).max() for each in found) < 1e-6


def test_the_nearest_solution_keeps_whole_turns():
    joints = np.array([0.3, -1.4, 1.6, -1.8, -1.5, 2 * np.pi + 0.4])
    np.testing.assert_allclose(nearest_solution(flange_pose(joints), joints + 0.05), joints, atol=1e-6)


@pytest.mark.parametrize("far", [(1.5, 0.0, 0.3), (0.01, 0.0, 0.5)])
def test_out_of_reach_there_is_none(far):
    pose = np.eye(4)
    pose[:3, :3] = np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = far
    assert nearest_solution(pose, np.zeros(6)) is None
