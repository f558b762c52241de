"""Millions of actions, random and hostile, through the production displacement layer and monitor, with a small arm.

``python -m robot_bridge.safety.soak --actions 2000000`` prints one line of JSON and fails at the first command that
leaves the hard box, exceeds a speed or a step, or follows a latch. It says nothing about drivers or hardware.
"""

import argparse
import dataclasses
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from qtopt.errors import RobotError
from qtopt.types import FloatArray
from robot_bridge.cell_file import CellFile, cell_config, parse_cell_file
from robot_bridge.contracts import ArmMode, ArmState, MotionCommand, Pose, Reaction, Verdict
from robot_bridge.displacement import limit_action, to_pose, to_tool, waypoints
from robot_bridge.robot import ToolPose
from robot_bridge.safety.commands import BACK_M, BACK_RAD, STRAIGHT_M
from robot_bridge.safety.facts import Heartbeat, Phase
from robot_bridge.safety.limits import TRANSIT_YAW_RAD
from robot_bridge.safety.monitor import CellSafetyMonitor

CELL = """
schema = 1
cell = "soak"
[arm]
driver = "none"
[gripper]
driver = "none"
[camera.main]
driver = "none"
[bin]
floor_z_m = 0.012
inner_min_m = [0.42, -0.18]
inner_max_m = [0.72, 0.18]
rim_z_m = 0.11
"""
_TICK_NS = 8_000_000
_FAULTS = ("nan", "jump", "stale", "e_stop", "protective", "force", "overspeed", "outside", "silence")
_SLACK = 1e-6
_STILL = (0.0,) * 6


class ActionStream:
    """Actions of one temper at a time: uniform, towards a corner, huge, not numbers, to and fro, at the yaw's end."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __iter__(self) -> Iterator[FloatArray]:
        makers = (self._uniform, self._corner, self._huge, self._broken, self._alternating, self._turning)
        while True:
            maker = self._chance.choice(makers)
            corner = [self._chance.choice((-1.0, 1.0)) for _ in range(3)]
            for number in range(self._chance.randint(1, 60)):
                yield np.array(maker(corner, number), np.float32)

    def _uniform(self, corner: list[float], number: int) -> list[float]:
        return [self._chance.uniform(-1.0, 1.0) for _ in range(8)]

    def _corner(self, corner: list[float], number: int) -> list[float]:
        return [*(0.3 * each for each in corner), corner[0] * 0.2, 1.0, 0.0, 0.0, 0.0]

    def _huge(self, corner: list[float], number: int) -> list[float]:
        return [self._chance.uniform(-3e38, 3e38) for _ in range(7)] + [0.0]

    def _broken(self, corner: list[float], number: int) -> list[float]:
        action = self._uniform(corner, number)
        action[self._chance.randrange(8)] = self._chance.choice((math.nan, math.inf, -math.inf))
        return action

    def _alternating(self, corner: list[float], number: int) -> list[float]:
        sign = 1.0 if number % 2 else -1.0
        return [*(sign * each for each in corner), sign, 0.1, float(number % 2), float(number % 3 == 0), 0.0]

    def _turning(self, corner: list[float], number: int) -> list[float]:
        turn = corner[0] * self._chance.choice((0.34, 0.35, 0.36, 1.5, 3.1, math.pi))
        return [0.0, 0.0, corner[2] * 1e-3, math.sin(turn), math.cos(turn), 0.0, 0.0, 0.0]


class Breach(Exception):
    """A command passed that should not have."""


def _require(holds: bool, otherwise: str, *evidence: object) -> None:  # noqa: FBT001 (reads as an assert does)
    if not holds:
        raise Breach(f"{otherwise}: {evidence}")


class Soak:
    """A kinematic arm that goes wherever an allowed command sends it, and a watcher that trusts nobody.

    Args:
        cell: the limits.
        seed: of everything random.
        fault_share: share of actions before which something breaks.
    """

    def __init__(self, cell: CellFile, seed: int, fault_share: float = 0.002) -> None:
        self._cell, self._chance, self._fault_share = cell, random.Random(seed), fault_share
        self._limits = cell_config(cell).limits
        low, high = self._limits.low_m, self._limits.high_m
        # Written out here, not asked of the code that is being tried; a policy never gets beside the bin.
        self._low_m = (low[0], low[1], cell.bin.floor_z_m + cell.limits.floor_hard_m)
        self._high_m = (high[0], high[1], cell.bin.rim_z_m + cell.bin.above_m)
        self._most_rise_m = cell.contact.retract_m + _SLACK
        self.monitor = CellSafetyMonitor(cell)
        self._now_ns = 0
        self._tool = ToolPose(0.57, 0.0, 0.2, 0.0)
        self.counts: Counter[str] = Counter()
        self._begin()

    def run(self, actions: int) -> None:
        """Runs so many actions; raises Breach at the first command that should not have passed."""
        for action, _ in zip(ActionStream(self._chance), range(actions), strict=False):
            if self._chance.random() < self._fault_share:
                self._break()
            self._act(action)
            if self.monitor.latched is not None or self._chance.random() < 0.05:
                self._begin()

    def _state(self, **changes: Any) -> ArmState:
        state = ArmState(self._now_ns, self._now_ns * 1e-9, to_pose(self._tool), _STILL, _STILL, (), ArmMode.READY)
        return dataclasses.replace(state, **changes) if changes else state

    def _tick(self) -> ArmState:
        self._now_ns += _TICK_NS
        self.monitor.beat(Heartbeat.COLLECTOR, self._now_ns)
        return self._state()

    def _begin(self) -> None:
        """Begins an episode, with a person's word where motion was locked."""
        inside = self.monitor.commands.region.clamp((self._tool.x_m, self._tool.y_m, self._tool.z_m))
        self._now_ns += 2_000_000_000
        self._tool = ToolPose(*inside, self._tool.yaw_rad)
        if self.monitor.latched is not None:
            self._expect_refusal()
            self._settle()
            self.monitor.acknowledge("soak", "the fault was looked at")
            self.counts["acknowledged"] += 1
        self._settle()
        if self._chance.random() < 0.5:
            self.monitor.finish_episode()
        for phase in (Phase.TRANSIT, Phase.EPISODE):
            verdict = self.monitor.enter(phase, self._now_ns)
            _require(verdict.reaction is Reaction.ALLOW, "cannot begin", verdict)

    def _settle(self) -> None:
        for _ in range(2):
            self.monitor.observe(self._tick(), self._now_ns)

    def _expect_refusal(self) -> None:
        command = MotionCommand(to_pose(self._tool), 0.01, 0.1, 0.1)
        for phase in Phase:
            verdict = self.monitor.enter(phase, self._now_ns)
            _require(verdict.reaction is Reaction.LATCH, "entered after a latch", phase)
        verdict = self.monitor.filter(command, self._tick(), self._now_ns)
        _require(
            verdict.reaction is Reaction.LATCH and verdict.command is None, "a command passed after a latch", verdict
        )

    def _act(self, action: FloatArray) -> None:
        state = self._tick()
        self.monitor.observe(state, self._now_ns)
        here = to_tool(state.pose, self._limits.home_yaw_rad)
        try:
            executed, target = limit_action(action, here, self._limits)
        except RobotError:
            self.counts["refused_actions"] += 1
            return
        turn = abs(math.atan2(executed[3], executed[4]))
        _require(turn <= self._limits.step_yaw_rad + 1e-5, "an action turns too far", action, turn)
        if self._chance.random() < 0.2:  # a caller that ignores the displacement layer
            target = self._wild(target)
        for leg in waypoints(here, target, self.monitor.commands.slow_z_m, TRANSIT_YAW_RAD):
            speed = self._chance.choice((0.05, 0.25, 0.5, 3.0))
            command = MotionCommand(
                to_pose(leg), speed, self._chance.choice((0.5, 50.0)), self._chance.choice((0.5, 3.0))
            )
            if not self._send(command):
                break

    def _wild(self, target: ToolPose) -> ToolPose:
        offset = [self._chance.uniform(-0.1, 0.1) for _ in range(3)]
        return ToolPose(
            target.x_m + offset[0], target.y_m + offset[1], target.z_m + offset[2], self._chance.uniform(-4.0, 4.0)
        )

    def _send(self, command: MotionCommand) -> bool:
        was_locked = self.monitor.latched is not None
        verdict = self.monitor.filter(command, self._tick(), self._now_ns)
        self.counts[verdict.reaction.value] += 1
        if verdict.reaction not in (Reaction.ALLOW, Reaction.CLAMP):
            return False
        _require(not was_locked, "a command passed after a latch", verdict)
        _require(self.monitor.latched is None, "a command passed into a latch", verdict)
        self._check(verdict)
        return True

    def _check(self, verdict: Verdict) -> None:
        command = verdict.command
        if command is None:
            raise Breach(f"{verdict} has no command")
        self._check_place(command, verdict)
        self._check_speed(command, verdict)
        start, target = self._tool, to_tool(command.target, self._limits.home_yaw_rad)
        turned = abs(target.yaw_rad - self._limits.home_yaw_rad)
        _require(turned <= self._limits.yaw_rad + 1e-5, "a target turns too far", verdict)
        _require(
            abs(target.yaw_rad - start.yaw_rad) <= TRANSIT_YAW_RAD + 0.06, "a command turns too much at once", verdict
        )
        way_m = math.dist(command.target.position_m, (start.x_m, start.y_m, start.z_m))
        self._now_ns += 20_000_000 + int(way_m / 0.05 * 1e9)
        self._tool = target
        self.monitor.observe(self._tick(), self._now_ns)

    def _check_place(self, command: MotionCommand, verdict: Verdict) -> None:
        x_m, y_m, z_m = point = command.target.position_m
        (a, b, c), (d, e, f), start = self._low_m, self._high_m, self._tool
        in_box = a - _SLACK <= x_m <= d + _SLACK and b - _SLACK <= y_m <= e + _SLACK and c - _SLACK <= z_m <= f + _SLACK
        _require(in_box, "a target leaves the hard box", verdict)
        _require(self.monitor.commands.region.outside_m(point) <= _SLACK, "a target leaves the region", verdict)
        if self.monitor.phase is Phase.RETRACT:  # which the policy's workspace does not bound, but ``_retreat``
            return
        aside_x, aside_y = abs(x_m - start.x_m), abs(y_m - start.y_m)
        if math.hypot(aside_x, aside_y) < 0.003 and z_m >= start.z_m:  # rising: far, and beyond the policy's own top
            return
        # From above the policy's own top it comes down in steps.
        below_top = z_m <= max(self._limits.high_m[2], start.z_m) + _SLACK
        _require(below_top, "a target leaves the policy's workspace", verdict)
        longest = max(aside_x, aside_y, abs(z_m - start.z_m))
        _require(longest <= self._cell.limits.step_m + _SLACK, "a step is too long", verdict)

    def _check_speed(self, command: MotionCommand, verdict: Verdict) -> None:
        limits, lower_z_m = self._cell.limits, min(command.target.position_m[2], self._tool.z_m)
        slow = lower_z_m < self.monitor.commands.slow_z_m - 2 * _SLACK or self.monitor.slow
        top_m_s = limits.slow_speed_m_s if slow else limits.speed_m_s
        _require(command.speed_m_s <= top_m_s, "a command is too fast", verdict)
        _require(command.accel_m_s2 <= limits.accel_m_s2, "a command is too fast", verdict)
        _require(command.yaw_rate_rad_s <= limits.yaw_rate_rad_s, "a command is too fast", verdict)

    def _retreat(self, wrench: tuple[float, ...]) -> None:
        """Leads out of what presses with ``wrench``, and tries what is no way out."""
        pressed = {"wrench": wrench}
        _require(self.monitor.enter(Phase.RETRACT, self._now_ns).reaction is Reaction.ALLOW, "cannot retreat")
        for _ in range(3):
            here = self._tool
            out = self.monitor.lead_out(self._state(), under_way=self._chance.random() < 0.5)
            wild = MotionCommand(to_pose(self._wild(here)), 3.0, 0.5, 3.0)
            command = out if self._chance.random() < 0.5 else wild
            self._tick()
            verdict = self.monitor.filter(command, self._state(**pressed), self._now_ns)
            self.counts[f"retreat_{verdict.reaction.value}"] += 1
            if verdict.reaction not in (Reaction.ALLOW, Reaction.CLAMP):
                _require(command is wild, "a way out was refused", verdict)
                continue
            self._check(verdict)
            there = self._tool
            aside_m = math.hypot(there.x_m - here.x_m, there.y_m - here.y_m)
            _require(aside_m <= BACK_M + STRAIGHT_M + 0.02, "a retreat goes far aside", verdict)  # out of a margin
            _require(-BACK_M - _SLACK <= there.z_m - here.z_m <= self._most_rise_m, "a retreat goes far", verdict)
            _require(abs(there.yaw_rad - here.yaw_rad) <= BACK_RAD + 1e-5, "a retreat turns far", verdict)
        self._begin()

    def _push(self, newtons: float) -> tuple[float, ...]:
        """Returns a wrench that presses in any direction."""
        x, y, z = (self._chance.gauss(0.0, 1.0) for _ in range(3))
        share = newtons / math.hypot(x, y, z)
        return share * x, share * y, share * z, 0.0, 0.0, 0.0

    def _break(self) -> None:
        """Lets one report, or the lack of reports, tell of a fault."""
        fault = self._chance.choice(_FAULTS)
        self.counts[f"fault_{fault}"] += 1
        x, y, z = to_pose(self._tool).position_m
        quaternion = to_pose(self._tool).quaternion_xyzw
        wrench = self._push(self._chance.choice((16.0, 35.0, 80.0)))
        reports: dict[str, dict[str, object]] = {
            "nan": {"pose": Pose((x, math.nan, z), quaternion)},
            "jump": {"pose": Pose((x + 0.08, y, z), quaternion)},
            "e_stop": {"mode": ArmMode.EMERGENCY_STOP},
            "protective": {"mode": ArmMode.PROTECTIVE_STOP},
            "force": {"wrench": wrench},
            "overspeed": {"twist": (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)},
            "outside": {"pose": Pose((x, y, z - 0.3), quaternion)},
        }
        if fault in ("stale", "silence"):
            frozen = self._state()
            self._now_ns += self._chance.choice((150_000_000, 400_000_000, 1_500_000_000))
            if fault == "stale":
                self.monitor.beat(Heartbeat.COLLECTOR, self._now_ns)
            verdict = self.monitor.observe(frozen, self._now_ns)
            _require(verdict.reaction is not Reaction.ALLOW, "a fault passed unseen", fault, verdict)
            return
        for _ in range(10 if fault == "overspeed" else 1):
            self._tick()
            verdict = self.monitor.observe(self._state(**reports[fault]), self._now_ns)
        if fault == "force" and verdict.reaction is Reaction.STOP:
            self._retreat(wrench)
        # Fifteen newtons only end a descent, and the arm may not have been in one.
        _require(verdict.reaction is not Reaction.ALLOW or fault == "force", "a fault passed unseen", fault, verdict)


def main() -> int:
    """Runs the soak and prints what it did; returns 0, or 1 with the reason at the first breach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actions", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    soak = Soak(parse_cell_file(CELL, "soak"), arguments.seed)
    started, breach = time.monotonic(), ""
    try:
        soak.run(arguments.actions)
    except Breach as error:
        breach = str(error)
    elapsed_s = time.monotonic() - started
    result = {
        "actions": arguments.actions,
        "seed": arguments.seed,
        "breach": breach,
        "elapsed_s": round(elapsed_s, 1),
        "actions_per_s": round(arguments.actions / elapsed_s),
        **dict(sorted(soak.counts.items())),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if breach else 0


if __name__ == "__main__":
    sys.exit(main())
