"""For any action, command, report or order of events: never outside, never too fast, never after a latch."""

import dataclasses
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from robot_bridge.cell_file import cell_config
from robot_bridge.contracts import ArmMode, MotionCommand, Pose, Reaction
from robot_bridge.displacement import limit_action, tilt_rad, to_pose, to_tool, waypoints
from robot_bridge.robot import ToolPose
from robot_bridge.safety.facts import CellFacts, Heartbeat, Phase
from robot_bridge.safety.soak import CELL, Soak
from tests.robot_bridge.safety.cells import Bench, cell

anything = st.floats(width=64)
CONFIG = cell()
LIMITS = cell_config(CONFIG).limits


@given(st.floats(-math.pi, math.pi), st.floats(-0.5, 0.5))
def test_a_tool_that_points_down_and_its_pose_are_one(yaw, home):
    tool = ToolPose(0.1, -0.2, 0.3, yaw)
    back = to_tool(to_pose(tool), home)
    assert math.remainder(back.yaw_rad - yaw, 2 * math.pi) < 1e-9
    assert abs(back.yaw_rad - home) <= math.pi + 1e-9
    assert tilt_rad(to_pose(tool)) < 1e-6


@given(
    st.lists(st.floats(-2, 2, width=32), min_size=8, max_size=8),
    st.tuples(st.floats(0.44, 0.70), st.floats(-0.16, 0.16), st.floats(0.02, 0.26), st.floats(-2.6, 2.6)),
)
def test_what_the_displacement_layer_lets_pass_the_monitor_does_not_change(action, place):
    """One place for each limit: both work on the same numbers."""
    bench = Bench()
    bench.put(*place)
    here = to_tool(bench.state().pose)
    _, target = limit_action(np.array(action, np.float32), here, LIMITS)
    for leg in waypoints(here, target, bench.monitor.commands.slow_z_m, math.pi / 2):
        slow = min(leg.z_m, bench.tool.z_m) < bench.monitor.commands.slow_z_m - 1e-6
        verdict = bench.send(MotionCommand(to_pose(leg), 0.05 if slow else 0.25, 0.8, 0.8))
        assert verdict.reaction is Reaction.ALLOW, verdict
        bench.put(leg.x_m, leg.y_m, leg.z_m, leg.yaw_rad)


@given(
    position=st.tuples(anything, anything, anything),
    quaternion=st.tuples(anything, anything, anything, anything),
    motion=st.tuples(anything, anything, anything),
    phase=st.sampled_from(Phase),
    place=st.tuples(st.floats(0.44, 0.70), st.floats(-0.16, 0.16), st.floats(0.02, 0.5)),
)
def test_whatever_is_commanded_what_passes_is_within_every_limit(position, quaternion, motion, phase, place):
    bench = Bench(phase=phase)
    bench.put(*place)
    verdict = bench.send(MotionCommand(Pose(position, quaternion), *motion))
    check(bench, verdict)


near = st.floats(-0.12, 0.12)


@given(
    step=st.tuples(near, near, near),
    yaw=st.floats(-4, 4),
    motion=st.tuples(st.floats(1e-3, 5), st.floats(1e-3, 50), st.floats(1e-3, 9)),
    phase=st.sampled_from([Phase.EPISODE, Phase.TRANSIT, Phase.RETRACT]),
    place=st.tuples(st.floats(0.42, 0.72), st.floats(-0.18, 0.18), st.floats(0.012, 0.45)),
)
@settings(max_examples=200)
def test_plausible_commands_as_well(step, yaw, motion, phase, place):
    bench = Bench(phase=phase)
    bench.put(*place)
    target = ToolPose(place[0] + step[0], place[1] + step[1], place[2] + step[2], yaw)
    check(bench, bench.send(MotionCommand(to_pose(target), *motion)))


def check(bench, verdict):
    """Asserts that what passed, if anything did, is within every limit."""
    if verdict.reaction not in (Reaction.ALLOW, Reaction.CLAMP):
        return
    allowed, rules = verdict.command, bench.monitor.commands
    position = allowed.target.position_m
    assert bench.monitor.latched is None
    assert rules.region.outside_m(position) <= 1e-9
    slow = min(position[2], bench.tool.z_m) < rules.slow_z_m - 1e-5 or bench.monitor.slow
    assert 0 < allowed.speed_m_s <= (CONFIG.limits.slow_speed_m_s if slow else CONFIG.limits.speed_m_s)
    assert 0 < allowed.accel_m_s2 <= CONFIG.limits.accel_m_s2
    assert 0 < allowed.yaw_rate_rad_s <= CONFIG.limits.yaw_rate_rad_s
    assert abs(to_tool(allowed.target).yaw_rad) <= CONFIG.limits.yaw_rad + 1e-5
    moved = [a - b for a, b in zip(position, to_pose(bench.tool).position_m, strict=True)]
    rising = math.hypot(*moved[:2]) < 0.003 + 0.02 and moved[2] >= -1e-9
    if bench.monitor.phase is Phase.EPISODE and not rising:
        assert max(map(abs, moved)) <= CONFIG.limits.step_m + 0.02 + 1e-6  # 20 mm: out of the wall's margin
    if bench.monitor.phase is Phase.RETRACT:
        assert rising


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, locked is locked until a person says otherwise."""

    @initialize()
    def begin(self):
        self.bench = Bench(phase=Phase.IDLE)
        self.locked = False

    @rule(seconds=st.sampled_from([0.008, 0.15, 0.3, 1.5, 40.0]), alive=st.booleans())
    def silence(self, seconds, alive):
        frozen = self.bench.state()
        self.bench.wait(seconds, alive=(Heartbeat.COLLECTOR,) if alive else ())
        self.note(self.bench.monitor.observe(frozen, self.bench.now_ns))

    @rule(mode=st.sampled_from(ArmMode), running=st.booleans())
    def mode(self, mode, running):
        self.note(self.bench.step(mode=mode, program_running=running))

    @rule(newtons=st.sampled_from([0.0, 16.0, 31.0, 61.0]))
    def press(self, newtons):
        self.note(self.bench.force(newtons))

    @rule(speed=st.sampled_from([0.1, 0.4, math.nan]))
    def move(self, speed):
        for _ in range(8):
            self.note(self.bench.step(0.01, twist=(speed, 0.0, 0.0, 0.0, 0.0, 0.0)))

    @rule(facts=st.builds(CellFacts, st.sampled_from([None, 0.1, 1.0, 3.0]), st.sampled_from(["", "dark"])))
    def devices(self, facts):
        self.bench.monitor.note(facts)
        self.note(self.bench.step())

    @rule(phase=st.sampled_from(Phase))
    def enter(self, phase):
        verdict = self.bench.monitor.enter(phase, self.bench.now_ns)
        assert not (self.locked and verdict.reaction is not Reaction.LATCH)

    @rule(z_m=st.sampled_from([0.19, 0.2, 0.22, math.nan, 9.0]))
    def send(self, z_m):
        wanted = MotionCommand(Pose((0.57, 0.0, z_m), (1.0, 0.0, 0.0, 0.0)), 0.1, 0.5, 0.5)
        verdict = self.bench.send(wanted)
        assert not (self.locked and verdict.reaction is not Reaction.LATCH)
        check(self.bench, verdict)
        self.note(verdict)

    @rule()
    def acknowledge(self):
        if self.bench.step().reaction is Reaction.LATCH:
            fresh = dataclasses.replace(self.bench.state(), mode=ArmMode.READY)
            assert fresh.mode.can_move
        self.bench.monitor.note(CellFacts())
        self.bench.step()
        self.bench.monitor.acknowledge("ann", "looked")
        self.locked = False

    def note(self, verdict):
        self.locked = self.locked or verdict.reaction is Reaction.LATCH

    @invariant()
    def locked_is_locked(self):
        if hasattr(self, "bench"):
            assert (self.bench.monitor.latched is not None) == self.locked


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_a_short_soak_finds_nothing():
    from robot_bridge.cell_file import parse_cell_file

    soak = Soak(parse_cell_file(CELL), seed=3, fault_share=0.02)
    soak.run(3000)
    assert soak.counts["clamp"] > 100
    assert soak.counts["allow"] > 10
    assert soak.counts["acknowledged"] > 5
    assert soak.counts["refused_actions"] > 10
