"""Where the plant's hand should be at every time step, and how hard its motors may press to get it there."""

import math

import numpy as np

from robot_bridge.displacement import TURN_PER_M
from robot_bridge.robot import ToolPose
from robot_bridge.tracking import slower, towards
from sim.hand import MAX_WIDTH_M, MOVED_KG, Samples
from sim.world import TIME_STEP_S

_BASE_N = 6.0
_BASE_NM = 1.5
_STIFFNESS_N_M = 8_000.0
"""Of arm, gripper and the pads on its fingers in a row: the softest of them counts."""
_STIFFNESS_NM_RAD = 60.0
_DAMPING_N_S_M = 25.0
"""A tenth of what would be critical along z: what swings on that spring comes to rest within a second."""
_MOST_N = 150.0
_MOST_NM = 12.0
_BRAKE_N = 1000.0
_BRAKE_NM = 50.0
_GIVE_UP_M = 0.02
"""The hand lags this far behind: something stands in the way."""
_GIVE_UP_RAD = 0.25
_FINGER_LEAD_M = 0.004
_FINGER_REST_M = 3e-4
_FINGER_CREEP_M = 2e-3
_FINGER_CHECK_TICKS = 12
_SLIP_TICKS = round(0.3 / TIME_STEP_S)


class Path:
    """The set point of the tool: goes to a target with limited speed and acceleration, or brakes, or stands."""

    def __init__(self, start: ToolPose) -> None:
        self._here = _row(start)
        self.velocity = np.zeros(4)
        self.accel_m_s2 = 0.0
        self._goal: Samples | None = None
        self._speed_m_s, self._yaw_rate_rad_s = 0.0, 0.0

    @property
    def under_way(self) -> bool:
        """Whether the set point moves or is about to."""
        return self._goal is not None or bool(self.velocity.any())

    def row(self) -> Samples:
        """Returns x, y, z [m], azimuth [rad], (4,)."""
        return self._here.copy()

    def go(self, target: ToolPose, speed_m_s: float, accel_m_s2: float, yaw_rate_rad_s: float) -> None:
        """Turns to a target."""
        self._goal, self._speed_m_s = _row(target), speed_m_s
        self.accel_m_s2, self._yaw_rate_rad_s = accel_m_s2, yaw_rate_rad_s

    def brake(self, decel_m_s2: float) -> None:
        """Comes to rest, wherever that is; what rests already stays as it is, however often it is told."""
        if self.under_way:
            self._goal, self.accel_m_s2 = None, decel_m_s2

    def settle(self, here: Samples) -> None:
        """Stands at ``here`` (4,) from now on."""
        self._here, self.velocity, self._goal = here.copy(), np.zeros(4), None
        self.accel_m_s2 = 0.0

    def advance(self, dt_s: float) -> None:
        """Moves the set point through a time step."""
        if self._goal is None:
            self.velocity[:3] = slower(self.velocity[:3], self.accel_m_s2 * dt_s)
            self.velocity[3:] = slower(self.velocity[3:], TURN_PER_M * self.accel_m_s2 * dt_s)
        else:
            gap = self._goal - self._here
            self.velocity[:3] = towards(gap[:3], self.velocity[:3], self._speed_m_s, self.accel_m_s2, dt_s)
            turn_rad_s2 = TURN_PER_M * self.accel_m_s2
            self.velocity[3:] = towards(gap[3:], self.velocity[3:], self._yaw_rate_rad_s, turn_rad_s2, dt_s)
        self._here = self._here + self.velocity * dt_s
        if self._goal is not None and np.abs(self._goal - self._here).max() < 1e-6:
            self.settle(self._goal)


class Fingers:
    """The set point of the fingers, and whether they still move."""

    def __init__(self, width_m: float) -> None:
        self._each = np.full(2, width_m / 2)
        self.rates = np.zeros(2)
        self._goal_m, self._speed_m_s, self._force_n = width_m / 2, 0.1, 20.0
        self._slack_ticks = 0
        self._nearest_m, self._progress_at = math.inf, 0
        self.moving = False

    @property
    def goal_m(self) -> float:
        """The opening that they were told to go to."""
        return 2 * self._goal_m

    @property
    def force_n(self) -> float:
        """What they press with at most: nothing while they slip."""
        return 0.0 if self._slack_ticks else self._force_n

    def row(self) -> Samples:
        """Returns where both fingers should be [m], (2,)."""
        return self._each.copy()

    def go(self, width_m: float, speed_m_s: float, force_n: float, ticks: int) -> None:
        """Turns to an opening, at ``ticks`` time steps since the beginning."""
        self._goal_m = min(max(width_m, 0.0), MAX_WIDTH_M) / 2
        self._speed_m_s, self._force_n = speed_m_s / 2, force_n
        self._nearest_m, self._progress_at, self.moving = math.inf, ticks, True

    def slip(self) -> None:
        """Lets go of what they hold for 0.3 s, as a belt does that jumps a tooth, and presses again."""
        self._slack_ticks = _SLIP_TICKS

    def advance(self, dt_s: float) -> None:
        """Moves the set point through a time step."""
        self._slack_ticks = max(0, self._slack_ticks - 1)
        before = self._each
        self._each = before + np.clip(self._goal_m - before, -self._speed_m_s * dt_s, self._speed_m_s * dt_s)
        self.rates = (self._each - before) / dt_s

    def observe(self, each_m: Samples, ticks: int, *, holding: bool = False) -> None:
        """Takes note of where the fingers are [m], (2,): the set point waits for them, and rest is noticed.

        They rest once they come no nearer to their goal, though they may tremble: a gripper looks at the current and
        the turns of its motor for that. Fingers that close on something are at rest though it yields a little.
        """
        self._each = np.clip(self._each, each_m - _FINGER_LEAD_M, each_m + _FINGER_LEAD_M)
        gap_m = abs(float(each_m.sum()) - self.goal_m)
        squeezing = holding and float(each_m.sum()) > self.goal_m
        if gap_m < self._nearest_m - 2 * (_FINGER_CREEP_M if squeezing else _FINGER_REST_M):
            self._nearest_m, self._progress_at = gap_m, ticks
        elif ticks - self._progress_at >= _FINGER_CHECK_TICKS:
            self.moving = False


class Motors:
    """How hard the motors may press: enough to accelerate, and more the further the hand lags behind.

    Once they have given up, brakes hold the hand until the next motion.
    """

    def __init__(self) -> None:
        self.braked = False

    def commands(
        self, path: Path, fingers: Fingers, here: Samples, moving: Samples
    ) -> tuple[Samples, Samples, Samples]:
        """Returns positions, rates and greatest forces of the next time step, (6,) each, as ``Hand.follow`` takes them.

        ``here`` (6,) is where the axes are, ``moving`` (6,) how fast they move. The position asked for is that
        of this step's beginning: the rate alone carries the hand to its end.
        """
        rates = np.concatenate([path.velocity, fingers.rates])
        rows = np.concatenate([path.row(), fingers.row()]) - rates * TIME_STEP_S
        behind = (rows - here)[:4]
        lag = np.abs(behind)
        growing_m_s = np.sign(behind[:3]) * (rates - moving)[:3]
        forces = np.empty(6)
        forces[:3] = _BASE_N + np.array(MOVED_KG) * path.accel_m_s2
        forces[:3] += np.maximum(0.0, _STIFFNESS_N_M * lag[:3] + _DAMPING_N_S_M * growing_m_s)
        forces[3] = _BASE_NM + _STIFFNESS_NM_RAD * lag[3]
        np.minimum(forces[:4], (_MOST_N, _MOST_N, _MOST_N, _MOST_NM), out=forces[:4])
        if self.braked:
            forces[:4] = (_BRAKE_N, _BRAKE_N, _BRAKE_N, _BRAKE_NM)
        forces[4:] = fingers.force_n
        return rows, rates, forces

    def overloaded(self, path: Path, here: Samples) -> bool:
        """Whether the hand at ``here`` (6,) is so far from the set point that the motors give up."""
        lag = np.abs(path.row() - here[:4])
        return bool(lag[:3].max() > _GIVE_UP_M or lag[3] > _GIVE_UP_RAD)


def _row(pose: ToolPose) -> Samples:
    return np.array([pose.x_m, pose.y_m, pose.z_m, pose.yaw_rad])
