"""Every row of the table in docs/safety.md, by hand: what is seen, what is answered, and what stays locked."""

import dataclasses
import math

import pytest

from qtopt.errors import RobotError
from robot_bridge.contracts import Pose, Reaction, SafetyMonitor
from robot_bridge.displacement import to_pose
from robot_bridge.safety.facts import Phase
from robot_bridge.safety.limits import ContactLimits
from tests.robot_bridge.safety.cells import HERE, Bench, cell, command, yaw_of

ALLOW, CLAMP, HOLD, STOP, LATCH = Reaction


def rule_of(verdict):
    return verdict.reaction, verdict.rule


@pytest.fixture
def bench():
    return Bench()


def test_it_is_a_safety_monitor(bench):
    monitor: SafetyMonitor = bench.monitor
    assert monitor.latched is None
    assert rule_of(bench.step()) == (ALLOW, "")
    verdict = bench.send(command(z_m=0.21))
    assert verdict.reaction is ALLOW
    assert verdict.command == command(z_m=0.21)


class TestSpeed:
    def test_commands_are_slowed_down(self, bench):
        verdict = bench.send(command(z_m=0.21, speed_m_s=2.0, accel_m_s2=9.0, yaw_rate_rad_s=4.0))
        assert rule_of(verdict) == (CLAMP, "speed")
        assert (verdict.command.speed_m_s, verdict.command.accel_m_s2) == (0.25, 0.8)
        assert verdict.command.yaw_rate_rad_s == 0.8

    def test_near_the_floor_and_in_a_new_cell_they_are_slow(self, bench):
        bench.put(z_m=0.06)
        assert bench.send(command(z_m=0.03)).command.speed_m_s == 0.05
        assert Bench(episodes_done=19).send(command(z_m=0.21)).command.speed_m_s == 0.05
        assert Bench(episodes_done=20).send(command(z_m=0.21)).command.speed_m_s == 0.2

    def test_a_cell_is_new_for_twenty_episodes(self):
        bench = Bench(episodes_done=0)
        counted = [(bench.monitor.slow, bench.monitor.finish_episode()) for _ in range(20)]
        assert counted == [(True, number) for number in range(1, 21)]
        assert not bench.monitor.slow

    def test_a_tool_that_is_too_fast_for_50_ms_is_stopped(self, bench):
        fast = (0.0, -0.31, 0.0, 0.0, 0.0, 0.0)
        reactions = [bench.step(0.01, twist=fast).reaction for _ in range(6)]
        assert reactions == [ALLOW] * 5 + [STOP]
        assert rule_of(bench.send()) == (STOP, "tcp_speed")

    def test_a_short_overshoot_is_none(self, bench):
        for _ in range(10):
            for speed in (0.31, 0.31, 0.31, 0.29):
                assert bench.step(0.01, twist=(speed, 0.0, 0.0, 0.0, 0.0, 0.0)).reaction is ALLOW

    def test_turning_too_fast_counts_as_well(self, bench):
        assert [bench.step(0.02, twist=(0, 0, 0, 0, 0, 1.0)).reaction for _ in range(4)][-1] is STOP

    def test_near_the_floor_the_measured_limit_is_low(self, bench):
        bench.put(z_m=0.03)
        assert [bench.step(0.02, twist=(0.07, 0, 0, 0, 0, 0)).reaction for _ in range(4)][-1] is STOP


class TestBox:
    def test_targets_are_kept_inside(self, bench):
        bench.put(x_m=0.69, z_m=0.03)
        verdict = bench.send(command(x_m=0.73, z_m=0.0, speed_m_s=0.05))
        assert rule_of(verdict) == (CLAMP, "step")
        assert verdict.command.target.position_m == pytest.approx((0.70, 0.0, 0.020))

    def test_a_step_is_short(self, bench):
        verdict = bench.send(command(x_m=0.65, y_m=-0.09))
        assert verdict.command.target.position_m == pytest.approx((0.62, -0.05, 0.2))

    def test_straight_up_is_no_step(self, bench):
        bench.put(z_m=0.05)
        assert bench.send(command(z_m=0.24)).command.target.position_m == pytest.approx((0.57, 0.0, 0.24))

    def test_a_lift_stays_over_the_bin(self, bench):
        bench.put(x_m=0.699, z_m=0.2)
        verdict = bench.send(command(x_m=0.7015, z_m=0.35))
        assert verdict.command.target.position_m == pytest.approx((0.70, 0.0, 0.35))

    def test_beside_the_bin_only_high_above_the_rim(self):
        bench = Bench(phase=Phase.TRANSIT)
        bench.put(z_m=0.3)
        assert bench.send(command(x_m=0.80, z_m=0.3)).command.target.position_m == pytest.approx((0.80, 0.0, 0.3))
        bench.put(x_m=0.80, z_m=0.3)
        assert bench.send(command(x_m=0.80, z_m=0.14)).command.target.position_m == pytest.approx((0.80, 0.0, 0.16))

    def test_no_way_leads_through_the_wall(self):
        bench = Bench(phase=Phase.TRANSIT)
        bench.put(z_m=0.05)
        assert rule_of(bench.send(command(x_m=0.90, z_m=0.2, speed_m_s=0.05))) == (STOP, "path")

    def test_a_target_far_outside_is_a_mistake(self):
        assert rule_of(Bench(phase=Phase.TRANSIT).send(command(x_m=570.0))) == (STOP, "target_box")

    @pytest.mark.parametrize(("z_m", "reaction"), [(0.006, ALLOW), (0.004, LATCH)])
    def test_ten_millimetres_beyond_the_hard_box_lock(self, bench, z_m, reaction):
        bench.put(z_m=0.02)
        bench.tool = dataclasses.replace(HERE, z_m=z_m)
        assert bench.step(0.2).reaction is reaction

    def test_what_is_locked_by_the_box_waits_until_the_arm_is_back(self, bench):
        bench.put(x_m=0.74, z_m=0.1)
        assert bench.monitor.latched.rule == "box"
        with pytest.raises(RobotError, match="outside of where it may be"):
            bench.monitor.acknowledge("ann", "looked")
        bench.put()
        bench.monitor.acknowledge("ann", "led back by hand")
        assert bench.monitor.latched is None


class TestCommands:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"x_m": math.nan},
            {"z_m": math.inf},
            {"speed_m_s": math.nan},
            {"speed_m_s": 0.0},
            {"accel_m_s2": -1.0},
            {"yaw_rate_rad_s": math.inf},
        ],
    )
    def test_nonsense_stops(self, bench, wrong):
        assert rule_of(bench.send(command(**wrong))) == (STOP, "bad_command")

    def test_the_tool_points_down(self, bench):
        sideways = Pose(to_pose(HERE).position_m, (0.0, math.sqrt(0.5), 0.0, math.sqrt(0.5)))
        assert rule_of(bench.send(dataclasses.replace(command(), target=sideways))) == (STOP, "bad_command")
        bench.monitor.enter(Phase.EPISODE, bench.now_ns)
        doubled = Pose(to_pose(HERE).position_m, (2.0, 0.0, 0.0, 0.0))
        assert "length 2" in bench.send(dataclasses.replace(command(), target=doubled)).reason

    def test_yaw_stays_within_150_degrees_of_home(self, bench):
        bench.put(yaw_rad=2.5)
        assert yaw_of(bench.send(command(yaw_rad=2.9)).command.target) == pytest.approx(math.radians(150))
        bench = Bench(cell("[home]\nyaw_rad = 1.0"))
        bench.put(yaw_rad=2.9)
        assert yaw_of(bench.send(command(yaw_rad=3.1)).command.target) == pytest.approx(3.1)

    def test_half_a_turn_takes_legs(self, bench):
        bench.put(yaw_rad=1.5)
        assert rule_of(bench.send(command(yaw_rad=-1.6))) == (STOP, "turn")

    def test_an_idle_cell_does_not_move(self):
        assert rule_of(Bench(phase=Phase.IDLE).send()) == (HOLD, "phase")

    def test_a_stop_lasts_until_something_new_begins(self, bench):
        bench.send(command(x_m=math.nan))
        for _ in range(3):
            assert rule_of(bench.send()) == (STOP, "bad_command")
            bench.step()
        assert bench.monitor.enter(Phase.TRANSIT, bench.now_ns).reaction is ALLOW
        assert bench.send().reaction is ALLOW


class TestContact:
    def test_fifteen_newtons_end_a_descent(self, bench):
        bench.put(z_m=0.1)
        assert bench.send(command(z_m=0.08, speed_m_s=0.05)).reaction is ALLOW
        assert bench.force(14.9).reaction is ALLOW
        assert rule_of(bench.force(15.1)) == (HOLD, "contact_descend")
        wrench = (0.0, 0.0, 15.1, 0.0, 0.0, 0.0)
        assert rule_of(bench.send(command(z_m=0.07), wrench=wrench)) == (HOLD, "contact_descend")
        assert bench.send(command(z_m=0.12), wrench=wrench).reaction is ALLOW
        assert bench.force(16.0).reaction is ALLOW  # on the way up

    def test_a_level_push_among_objects_ends_as_a_descent_does(self, bench):
        bench.put(z_m=0.1)
        assert bench.send(command(z_m=0.1)).reaction is ALLOW
        assert rule_of(bench.force(15.1)) == (HOLD, "contact_descend")

    def test_what_rubs_sideways_does_not_end_a_descent(self, bench):
        bench.put(z_m=0.1)
        assert bench.send(command(z_m=0.08, speed_m_s=0.05)).reaction is ALLOW
        assert bench.step(wrench=(16.0, -15.0, 14.9, 0, 0, 0)).reaction is ALLOW
        assert rule_of(bench.step(wrench=(16.0, -15.0, 15.1, 0, 0, 0))) == (HOLD, "contact_descend")
        assert rule_of(bench.step(wrench=(0.0, 0.0, -15.1, 0, 0, 0))) == (HOLD, "contact_descend")  # whatever its sign

    def test_what_presses_from_aside_ends_a_motion_that_does_not_lead_up(self, bench):
        bench.put(z_m=0.1)
        pressed = {"wrench": (-16.0, -16.0, 3.0, 0.0, 0.0, 0.0)}
        assert bench.send(command(z_m=0.1)).reaction is ALLOW
        assert rule_of(bench.step(**pressed)) == (HOLD, "contact_aside")
        assert rule_of(bench.send(command(x_m=0.58, z_m=0.09), **pressed)) == (HOLD, "contact_aside")
        assert bench.send(command(z_m=0.12), **pressed).reaction is ALLOW
        assert bench.step(**pressed).reaction is ALLOW  # on the way up

    def test_nothing_ends_a_way_across_the_bin_from_aside_before_a_retreat(self):
        bench = Bench(phase=Phase.TRANSIT)
        assert bench.send(command(z_m=0.19)).reaction is ALLOW
        assert bench.step(wrench=(-16.0, -16.0, 3.0, 0.0, 0.0, 0.0)).reaction is ALLOW

    def test_the_step_out_of_what_presses_from_aside_leads_back_and_passes(self, bench):
        bench.put(z_m=0.1)
        assert bench.send(command(x_m=0.6, z_m=0.1)).reaction is ALLOW
        bench.put(x_m=0.59, z_m=0.1)
        pressed = {"wrench": (-25.0, 0.0, 0.0, 0.0, 0.0, 0.0)}
        for _ in range(2):  # the second one leads no other way, though the first was a motion as well
            step = bench.monitor.step_back(bench.state(), 0.004)
            assert step.target.position_m == pytest.approx((0.586, 0.0, 0.104))
            assert bench.send(step, **pressed).reaction is ALLOW

    def test_thirty_newtons_send_the_tool_up(self, bench):
        bench.put(z_m=0.1)
        verdict = bench.force(31.0)
        assert rule_of(verdict) == (STOP, "contact_retract")
        assert verdict.command.target.position_m == pytest.approx((0.57, 0.0, 0.13))
        pressed = {"wrench": (0.0, 0.0, 31.0, 0.0, 0.0, 0.0)}
        assert bench.send(verdict.command, **pressed).reaction is STOP  # not before the retreat is begun
        assert bench.monitor.enter(Phase.TRANSIT, bench.now_ns).reaction is STOP
        assert bench.monitor.enter(Phase.RETRACT, bench.now_ns).reaction is ALLOW
        allowed = bench.send(verdict.command, **pressed)
        assert allowed.reaction is ALLOW
        assert allowed.command.speed_m_s <= 0.05
        assert rule_of(bench.send(command(z_m=0.05))) == (STOP, "retract")

    def test_the_way_out_of_a_press_leads_back_a_little_along_the_way_that_was_made(self, bench):
        bench.put(x_m=0.57, z_m=0.1)
        assert bench.send(command(x_m=0.60, z_m=0.1)).reaction is ALLOW
        bench.put(x_m=0.59, z_m=0.1)
        verdict = bench.force(31.0)
        assert verdict.command.target.position_m == pytest.approx((0.58, 0.0, 0.13))
        assert bench.monitor.enter(Phase.RETRACT, bench.now_ns).reaction is ALLOW
        pressed = {"wrench": (-31.0, 0.0, 0.0, 0.0, 0.0, 0.0)}
        for x_m, y_m in ((0.60, 0.0), (0.57, 0.0), (0.59, 0.01)):  # on, further back, aside
            assert rule_of(bench.send(command(x_m=x_m, y_m=y_m, z_m=0.13), **pressed)) == (STOP, "retract")
        assert bench.send(verdict.command, **pressed).reaction is ALLOW
        bench.put(x_m=0.58, z_m=0.13)
        assert bench.monitor.lead_out(bench.state(), under_way=True).target.position_m == pytest.approx(
            (0.57, 0.0, 0.16)
        )

    def test_a_way_out_turns_back_a_little_and_no_other_way(self, bench):
        bench.put(z_m=0.1)
        assert bench.send(command(z_m=0.1, yaw_rad=0.3)).reaction is ALLOW
        bench.put(z_m=0.1, yaw_rad=0.25)
        out = bench.force(31.0).command
        assert yaw_of(out.target) == pytest.approx(0.10)
        assert bench.monitor.enter(Phase.RETRACT, bench.now_ns).reaction is ALLOW
        pressed = {"wrench": (31.0, 0.0, 0.0, 0.0, 0.0, 0.0)}
        assert bench.send(out, **pressed).reaction is ALLOW
        for asked_rad, allowed_rad in ((0.3, 0.25), (0.2, 0.2), (-0.5, 0.10)):
            kept = bench.send(command(z_m=0.11, yaw_rad=asked_rad), **pressed)
            assert yaw_of(kept.command.target) == pytest.approx(allowed_rad, abs=1e-6)
        bench.put(z_m=0.11, yaw_rad=0.05)  # no further than where it came from
        assert yaw_of(bench.monitor.lead_out(bench.state(), under_way=True).target) == pytest.approx(0.0, abs=1e-6)

    def test_a_short_motion_is_the_way_of_what_it_presses_on(self, bench):
        bench.put(z_m=0.08)
        assert bench.send(command(z_m=0.11)).reaction is ALLOW
        bench.put(z_m=0.11)
        assert bench.send(command(z_m=0.104)).reaction is ALLOW  # down again, by no more than a step out of something
        bench.put(z_m=0.106)
        assert bench.force(31.0).command.target.position_m == pytest.approx((0.57, 0.0, 0.136))

    def test_what_rose_goes_back_down(self, bench):
        bench.put(z_m=0.1)
        assert bench.send(command(z_m=0.106)).reaction is ALLOW
        bench.put(z_m=0.104)
        assert bench.force(31.0).command.target.position_m == pytest.approx((0.57, 0.0, 0.1))

    def test_a_short_way_out_leads_no_further_back_than_up(self):
        bench = Bench(cell(contact=ContactLimits(retract_m=0.004)))
        bench.put(z_m=0.1)
        assert bench.send(command(x_m=0.6, z_m=0.1, yaw_rad=0.3)).reaction is ALLOW
        bench.put(x_m=0.59, z_m=0.1, yaw_rad=0.25)
        out = bench.force(31.0).command
        assert out.target.position_m == pytest.approx((0.586, 0.0, 0.104))
        assert yaw_of(out.target) == pytest.approx(0.19)

    def test_what_presses_on_a_tool_that_rises_is_left_by_the_way_back_down(self, bench):
        bench.put(z_m=0.1)
        assert bench.send(command(z_m=0.15)).reaction is ALLOW
        bench.put(z_m=0.12)
        out = bench.force(31.0).command
        assert out.target.position_m == pytest.approx((0.57, 0.0, 0.11))
        assert bench.monitor.enter(Phase.RETRACT, bench.now_ns).reaction is ALLOW
        pressed = {"wrench": (0.0, 0.0, -31.0, 0.0, 0.0, 0.0)}
        assert bench.send(out, **pressed).reaction is ALLOW
        assert rule_of(bench.send(command(z_m=0.105), **pressed)) == (STOP, "retract")

    def test_a_way_out_that_presses_harder_ends(self, bench):
        bench.put(z_m=0.1)
        out = bench.force(31.0).command
        assert bench.monitor.enter(Phase.RETRACT, bench.now_ns).reaction is ALLOW
        pressed = {"wrench": (0.0, 0.0, 38.0, 0.0, 0.0, 0.0)}
        assert bench.send(out, **pressed).reaction is ALLOW
        assert rule_of(bench.step(wrench=(0.0, 0.0, 40.0, 0.0, 0.0, 0.0))) == (STOP, "contact_retract")

    def test_a_way_out_does_not_turn_where_nothing_was_turned(self, bench):
        bench.put(z_m=0.1)
        bench.force(31.0)
        bench.monitor.enter(Phase.RETRACT, bench.now_ns)
        verdict = bench.send(command(z_m=0.12, yaw_rad=0.5), wrench=(0.0, 0.0, 31.0, 0.0, 0.0, 0.0))
        assert yaw_of(verdict.command.target) == pytest.approx(0.0, abs=1e-6)

    def test_sixty_newtons_lock(self, bench):
        bench.monitor.enter(Phase.RETRACT, bench.now_ns)
        assert rule_of(bench.force(61.0)) == (LATCH, "contact_latch")
        assert rule_of(bench.step()) == (LATCH, "contact_latch")

    def test_the_direction_does_not_matter(self, bench):
        assert bench.step(wrench=(-20.0, 20.0, -20.0, 0, 0, 0)).rule == "contact_retract"

    def test_what_presses_from_aside_is_as_much_as_the_cell_says(self):
        assert ContactLimits().press_n == 22.5
        bench = Bench(cell(contact=ContactLimits(aside_n=16.0)))
        bench.send(command(z_m=0.19))
        assert bench.step(wrench=(15.9, 0.0, 0.0, 0.0, 0.0, 0.0)).reaction is ALLOW
        assert bench.step(wrench=(16.1, 0.0, 0.0, 0.0, 0.0, 0.0)).rule == "contact_aside"

    def test_thresholds_are_the_cells(self):
        bench = Bench(cell(contact=ContactLimits(5.0, 8.0, 12.0)))
        assert [bench.force(each).reaction for each in (7.9, 8.1, 12.1)] == [ALLOW, STOP, LATCH]

    def test_an_arm_without_wrench_has_no_contact_rule(self, bench):
        assert bench.step(wrench=None).reaction is ALLOW


def test_what_is_zeroed_away_stays_below_what_sends_the_tool_up(bench):
    nothing, pulls = (0.0, 0.0, 0.0), (0.0, 12.0, 0.0)
    assert bench.monitor.was_zeroed((0.0, 50.0, 0.0), nothing) == "", "the first time"
    assert [bench.monitor.was_zeroed(pulls, nothing)[:4] for _ in range(3)] == ["", "", "35 N"]
    assert "hose" in bench.monitor.was_zeroed(nothing, nothing), "and stays so for a while"


def test_an_arm_that_zeroes_nothing_hides_nothing(bench):
    assert {bench.monitor.was_zeroed((0.0, 12.0, 0.0), (0.0, 12.0, 0.0)) for _ in range(10)} == {""}


def test_the_noise_of_a_sensor_does_not_sum_up(bench, rng):
    noise_n = rng.normal(0.0, 0.5, (20_000, 2, 3))  # of means of twenty reports, 2 N each
    assert {bench.monitor.was_zeroed(tuple(before), tuple(after)) for before, after in noise_n} == {""}


def test_what_a_hose_adds_little_by_little_is_seen(bench):
    nothing = (0.0, 0.0, 0.0)
    said = [bench.monitor.was_zeroed((1.0, 0.0, 0.0), nothing) for _ in range(60)]
    assert said[0] == said[30] == ""
    assert said[-1].startswith("3")
