"""The rules about one command: where it leads, by which way, how fast. Pure, like everything around it."""

import math
from dataclasses import dataclass

from robot_bridge.cell_file import CellFile, cell_config
from robot_bridge.contracts import ArmState, MotionCommand, Pose, Reaction, Verdict
from robot_bridge.displacement import limit_position, tilt_rad, to_pose, to_tool
from robot_bridge.robot import ToolPose
from robot_bridge.safety.facts import Phase
from robot_bridge.safety.limits import BOX_TOLERANCE_M, TILT_RAD, TRANSIT_YAW_RAD
from robot_bridge.safety.region import Point, Region

FAR_OUT_M = 0.05
"""A target so far outside the region is no inaccuracy to be clamped but a mistake."""
STRAIGHT_M = 0.003
"""A motion that strays less than this from the vertical goes straight up or down."""
BACK_M = 0.010
"""A retreat leads so far back along the tool's way [m]; straight up, what presses from aside goes along."""
BACK_RAD = 0.15
"""It turns so far back [rad] with it; what a turn has brought against a wall would be dragged along it."""
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Way:
    """The newest motion that was no way out of something.

    Attributes:
        start_m: where the tool point was when it set out.
        start_yaw_rad: its azimuth then.
        rose: it led up.
    """

    start_m: Point
    start_yaw_rad: float
    rose: bool

    def back_m(self, here_m: Point, most_m: float) -> Point:
        """Returns how far a retreat from ``here_m`` leads back (x, y, z) [m]: ``most_m`` at most; down if it rose."""
        x_m, y_m, z_m = (to - at for to, at in zip(self.start_m, here_m, strict=True))
        share = min(1.0, most_m / max(math.hypot(x_m, y_m), _EPSILON))
        return share * x_m, share * y_m, min(0.0, max(z_m, -most_m)) if self.rose else 0.0

    def turn_back_rad(self, yaw_rad: float, most_rad: float) -> float:
        """Returns how far a retreat at an azimuth turns back: ``most_rad`` at most."""
        turn_rad = math.remainder(self.start_yaw_rad - yaw_rad, math.tau)
        return min(max(turn_rad, -most_rad), most_rad)


class CommandRules:
    """Judges and clamps motion commands.

    Args:
        cell: bin and limits.
    """

    def __init__(self, cell: CellFile) -> None:
        self.limits = cell.limits
        self.region = Region(cell.bin, cell.limits)
        self.slow_z_m = cell.bin.floor_z_m + cell.limits.slow_height_m
        self._motion = cell_config(cell).limits
        self._rise_m = max(cell.contact.retract_m, cell.recovery.rise_m)

    def speed_limit_m_s(self, z_m: float, *, slow: bool) -> float:
        """Returns the speed allowed with the tool point at a height; ``slow``: the cell is new."""
        near_floor = z_m < self.slow_z_m - _EPSILON
        return self.limits.slow_speed_m_s if slow or near_floor else self.limits.speed_m_s

    def judge(self, command: MotionCommand, state: ArmState, phase: Phase, *, slow: bool, way: Way | None) -> Verdict:
        """Returns ALLOW or CLAMP with the command to send, or what is wrong with it; the report is a sound one.

        A retreat may lead, and turn, a little back along ``way``.
        """
        fault = _nonsense(command)
        if fault:
            return Verdict(Reaction.STOP, "bad_command", fault)
        if phase is Phase.IDLE:
            return Verdict(Reaction.HOLD, "phase", "the cell is idle; a motion was not expected")
        home = self._motion.home_yaw_rad
        here, wanted = to_tool(state.pose, home), to_tool(command.target, home)
        target = self._target(wanted, here, phase, way)
        if isinstance(target, Verdict):
            return target
        if abs(target.yaw_rad - here.yaw_rad) > TRANSIT_YAW_RAD + 0.05:
            turn = math.degrees(target.yaw_rad - here.yaw_rad)
            return Verdict(Reaction.STOP, "turn", f"a turn by {turn:.0f} degrees is asked for at once, expected legs")
        start_m, end_m = state.pose.position_m, (target.x_m, target.y_m, target.z_m)
        outside = self.region.outside_m(start_m) > 0.0
        if not self.region.is_straight_way_free(start_m, end_m, BOX_TOLERANCE_M if outside else _EPSILON):
            return Verdict(Reaction.STOP, "path", f"the way from {start_m} to {end_m} runs through the bin's wall")
        return self._within(command, wanted, target, here, phase, slow=slow)

    def _target(self, wanted: ToolPose, here: ToolPose, phase: Phase, way: Way | None) -> ToolPose | Verdict:
        point = (wanted.x_m, wanted.y_m, wanted.z_m)
        straight = math.hypot(wanted.x_m - here.x_m, wanted.y_m - here.y_m) < STRAIGHT_M
        rising = straight and wanted.z_m >= here.z_m
        if phase is Phase.RETRACT and not self._leads_out(wanted, here, way):
            words = "only up, and a little back, is allowed after a contact or protective stop"
            return Verdict(Reaction.STOP, "retract", words)
        if phase is Phase.EPISODE:  # a lift may be long and high, but it stays over the bin
            x_m, y_m, z_m = limit_position(point, here, self._motion)
            point = (x_m, y_m, wanted.z_m if rising else z_m)
        inside = self.region.clamp(point)
        if math.dist(point, inside) > FAR_OUT_M:
            return Verdict(
                Reaction.STOP, "target_box", f"the target {point} lies {math.dist(point, inside):.3f} m outside"
            )
        home, reach = self._motion.home_yaw_rad, self._motion.yaw_rad
        low_rad, high_rad = home - reach, home + reach
        if phase is Phase.RETRACT:
            turn_rad = 0.0 if way is None else way.turn_back_rad(here.yaw_rad, BACK_RAD)
            low_rad, high_rad = sorted((here.yaw_rad, here.yaw_rad + turn_rad))
        return ToolPose(*inside, min(max(wanted.yaw_rad, low_rad), high_rad))

    def _leads_out(self, wanted: ToolPose, here: ToolPose, way: Way | None) -> bool:
        back_x_m, back_y_m, down_m = (0.0, 0.0, 0.0) if way is None else way.back_m(_place(here), BACK_M)
        x_m, y_m, rise_m = (to - at for to, at in zip(_place(wanted), _place(here), strict=True))
        share = _nearest_share((x_m, y_m), (back_x_m, back_y_m))
        aside_m = math.hypot(x_m - share * back_x_m, y_m - share * back_y_m)
        return aside_m < STRAIGHT_M and down_m - _EPSILON <= rise_m <= self._rise_m + _EPSILON

    def _within(
        self, command: MotionCommand, wanted: ToolPose, target: ToolPose, here: ToolPose, phase: Phase, *, slow: bool
    ) -> Verdict:
        careful = slow or phase is Phase.RETRACT
        speed = min(command.speed_m_s, self.speed_limit_m_s(min(here.z_m, target.z_m), slow=careful))
        accel = min(command.accel_m_s2, self.limits.accel_m_s2)
        rate = min(command.yaw_rate_rad_s, self.limits.yaw_rate_rad_s)
        clamped = []
        if math.dist((wanted.x_m, wanted.y_m, wanted.z_m), (target.x_m, target.y_m, target.z_m)) > _EPSILON:
            clamped.append("box" if phase is not Phase.EPISODE else "step")
        if abs(wanted.yaw_rad - target.yaw_rad) > _EPSILON:
            clamped.append("yaw")
        pose = Pose((target.x_m, target.y_m, target.z_m), command.target.quaternion_xyzw)
        if "yaw" in clamped:
            pose = to_pose(target)
        allowed = MotionCommand(pose, speed, accel, rate)
        names = ("speed_m_s", "accel_m_s2", "yaw_rate_rad_s")
        clamped += [name.split("_")[0] for name in names if getattr(allowed, name) < getattr(command, name)]
        if not clamped:
            return Verdict(Reaction.ALLOW, command=allowed)
        return Verdict(Reaction.CLAMP, clamped[0], f"kept within its limits: {', '.join(clamped)}", allowed)


def lead_out(state: ArmState, way: Way | None, rise_m: float, speed_m_s: float) -> MotionCommand:
    """Returns the motion that leads up, and a little back along ``way``, turns too; it has yet to be filtered.

    It leads no further back than up. What was pressed on its way up goes back down instead.
    """
    x_m, y_m, z_m = here_m = state.pose.position_m
    yaw_rad = to_tool(state.pose).yaw_rad
    down_m = 0.0
    if way is not None:
        most_m = min(rise_m, BACK_M)
        back_x_m, back_y_m, down_m = way.back_m(here_m, most_m)
        x_m, y_m = x_m + back_x_m, y_m + back_y_m
        yaw_rad += way.turn_back_rad(yaw_rad, BACK_RAD * most_m / BACK_M)
    target = to_pose(ToolPose(x_m, y_m, z_m + (down_m if down_m < 0.0 else rise_m), yaw_rad))
    return MotionCommand(target, speed_m_s, 0.5, 0.1, leads_out=True)


def straight_up(state: ArmState, rise_m: float, speed_m_s: float) -> MotionCommand:
    """Returns the motion that leads straight up from where the tool is; it has yet to be filtered."""
    return lead_out(state, None, rise_m, speed_m_s)


def _place(tool: ToolPose) -> Point:
    return tool.x_m, tool.y_m, tool.z_m


def _nearest_share(point: tuple[float, float], way: tuple[float, float]) -> float:
    """Returns at which share of a way from the origin it comes nearest to a point."""
    length = way[0] ** 2 + way[1] ** 2
    return min(1.0, max(0.0, (point[0] * way[0] + point[1] * way[1]) / length)) if length > 0.0 else 0.0


def _nonsense(command: MotionCommand) -> str:
    numbers = (*command.target.position_m, *command.target.quaternion_xyzw)
    motion = (command.speed_m_s, command.accel_m_s2, command.yaw_rate_rad_s)
    if not all(map(math.isfinite, numbers)) or not all(math.isfinite(each) and each > 0 for each in motion):
        return f"the command holds what is not a (positive) number: {command}"
    length = math.hypot(*command.target.quaternion_xyzw)
    if abs(length - 1.0) > 1e-3:
        return f"the target's orientation has length {length:.4f}, expected 1"
    tilt = tilt_rad(command.target)
    if tilt > TILT_RAD:
        return f"the target tilts the tool by {math.degrees(tilt):.0f} degrees; it must point straight down"
    return ""
