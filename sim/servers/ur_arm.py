"""A UR5e from its published Denavit-Hartenberg table: where the flange is at six joint angles, and the way back.

The hand of the plant hangs on a KUKA; a client of the simulated UR reads and sends the joints of this arm, at whose
flange the same hand would stand where it does.
"""

import math
from itertools import product

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Joints = npt.NDArray[np.float64]

A2_M, A3_M = -0.425, -0.3922
D1_M, D4_M, D5_M, D6_M = 0.1625, 0.1333, 0.0997, 0.0996
_ROWS = (
    (0.0, D1_M, math.pi / 2),
    (A2_M, 0.0, 0.0),
    (A3_M, 0.0, 0.0),
    (0.0, D4_M, math.pi / 2),
    (0.0, D5_M, -math.pi / 2),
    (0.0, D6_M, 0.0),
)


def _link(angle: float, row: tuple[float, float, float]) -> Matrix:
    a, d, alpha = row
    c, s, ca, sa = math.cos(angle), math.sin(angle), math.cos(alpha), math.sin(alpha)
    return np.array([[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1.0]])


def flange_pose(joints: Joints) -> Matrix:
    """Returns the flange in the base frame, (4, 4), at six joint angles [rad]."""
    pose = np.eye(4)
    for angle, row in zip(joints, _ROWS, strict=True):
        pose = pose @ _link(float(angle), row)
    return pose


def joint_solutions(flange: Matrix) -> list[Joints]:
    """Returns up to eight sets of joint angles [rad] within plus and minus pi; none where the arm cannot reach."""
    found = []
    wrist = flange @ np.array([0.0, 0.0, -D6_M, 1.0])
    radius = math.hypot(wrist[0], wrist[1])
    if radius < D4_M:
        return []
    for shoulder, turn, elbow in product((1, -1), repeat=3):
        q1 = math.atan2(wrist[1], wrist[0]) + shoulder * math.acos(D4_M / radius) + math.pi / 2
        c1, s1 = math.cos(q1), math.sin(q1)
        q5 = turn * math.acos(float(np.clip((flange[0, 3] * s1 - flange[1, 3] * c1 - D4_M) / D6_M, -1, 1)))
        s5 = math.sin(q5)
        if abs(s5) < 1e-9:
            continue
        back = flange[:3, :3].T
        q6 = math.atan2((-back[1, 0] * s1 + back[1, 1] * c1) / s5, (back[0, 0] * s1 - back[0, 1] * c1) / s5)
        inner = np.linalg.inv(_link(q1, _ROWS[0])) @ flange @ np.linalg.inv(_link(q5, _ROWS[4]) @ _link(q6, _ROWS[5]))
        x, y = (inner @ np.array([0.0, -D4_M, 0.0, 1.0]))[:2]
        cosine = (x * x + y * y - A2_M**2 - A3_M**2) / (2 * A2_M * A3_M)
        if abs(cosine) > 1:
            continue
        q3 = elbow * math.acos(cosine)
        q2 = math.atan2(y, x) - math.atan2(A3_M * math.sin(q3), A2_M + A3_M * math.cos(q3))
        forearm = np.linalg.inv(_link(q2, _ROWS[1]) @ _link(q3, _ROWS[2])) @ inner
        q4 = math.atan2(forearm[1, 0], forearm[0, 0])
        found.append(np.array([math.remainder(q, 2 * math.pi) for q in (q1, q2, q3, q4, q5, q6)]))
    return found


def nearest_solution(flange: Matrix, near: Joints) -> Joints | None:
    """Returns the solution nearest to ``near`` (6,) [rad], each joint turned by whole turns to be so; None without."""
    turned = [near + np.remainder(each - near + np.pi, 2 * np.pi) - np.pi for each in joint_solutions(flange)]
    return min(turned, key=lambda each: float(np.abs(each - near).sum()), default=None)
