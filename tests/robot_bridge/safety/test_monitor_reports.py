"""The rows of the table in docs/safety.md on reports, heartbeats, devices, what is locked and what recovers."""

import dataclasses
import math

import pytest

from qtopt.errors import RobotError
from robot_bridge.contracts import ArmMode, Latch, Pose, Reaction
from robot_bridge.safety.facts import CellFacts, Heartbeat, Phase
from robot_bridge.safety.limits import RecoveryLimits
from robot_bridge.safety.monitor import CellSafetyMonitor
from tests.robot_bridge.safety.cells import HERE, Bench, cell, command

ALLOW, CLAMP, HOLD, STOP, LATCH = Reaction


def rule_of(verdict):
    return verdict.reaction, verdict.rule


@pytest.fixture
def bench():
    return Bench()


class TestAge:
    def test_silence_holds_stops_and_locks(self, bench):
        silent = bench.state()
        found = []
        for age_s in (0.09, 0.11, 0.24, 0.26, 0.99, 1.01):
            now_ns = silent.t_host_ns + round(age_s * 1e9)
            bench.monitor.beat(Heartbeat.COLLECTOR, now_ns)
            bench.monitor.beat(Heartbeat.POLICY, now_ns)
            found.append(bench.monitor.observe(silent, now_ns).reaction)
        assert found == [ALLOW, HOLD, HOLD, STOP, STOP, LATCH]
        assert bench.monitor.latched == Latch("link_lost", "nothing new from the arm for 1.01 s", 5.0)

    def test_a_frozen_clock_is_silence(self, bench):
        frozen_s = bench.now_ns * 1e-9
        found = [bench.step(0.05, t_controller_s=frozen_s).reaction for _ in range(21)]
        assert found[:3] == [ALLOW, ALLOW, HOLD]
        assert found[5] is STOP
        assert found[-1] is LATCH

    def test_a_slow_arm_gets_three_and_six_periods(self):
        bench = Bench(cell("[watchdog]\nperiod_s = 0.1"))
        silent = bench.state()
        ages_s = (0.29, 0.31, 0.59, 0.61)
        found = [bench.monitor.observe(silent, silent.t_host_ns + round(age * 1e9)).rule for age in ages_s]
        assert found[0] == ""
        assert found[1:] == ["state_age"] * 3

    def test_repeated_and_late_reports_do_no_harm(self, bench):
        old = bench.state()
        bench.step()
        for _ in range(3):
            assert bench.monitor.observe(old, bench.now_ns).reaction is ALLOW
        assert bench.step(0.09).reaction is ALLOW

    def test_no_report_at_all_holds(self):
        monitor = CellSafetyMonitor(cell())
        assert monitor.observe(None, 1).reaction is HOLD
        assert monitor.enter(Phase.TRANSIT, 1).reaction is HOLD

    def test_a_controller_that_starts_anew_locks(self, bench):
        verdict = bench.step(t_controller_s=3.0)
        assert verdict.reaction is LATCH
        assert "start anew" in verdict.reason


class TestReports:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"pose": Pose((0.57, math.nan, 0.2), (1.0, 0.0, 0.0, 0.0))},
            {"pose": Pose((570.0, 0.0, 200.0), (1.0, 0.0, 0.0, 0.0))},
            {"pose": Pose((0.57, 0.0, 0.2), (0.5, 0.0, 0.0, 0.0))},
            {"pose": Pose((0.57, 0.08, 0.2), (1.0, 0.0, 0.0, 0.0))},
            {"twist": (math.inf, 0, 0, 0, 0, 0)},
            {"wrench": (0, 0, math.nan, 0, 0, 0)},
            {"t_controller_s": math.nan},
        ],
    )
    def test_what_cannot_be_locks(self, bench, wrong):
        assert rule_of(bench.step(**wrong)) == (LATCH, "bad_state")
        assert bench.send().reaction is LATCH

    def test_a_fast_but_possible_motion_is_no_jump(self, bench):
        bench.tool = dataclasses.replace(HERE, y_m=0.02)
        assert bench.step(0.05).reaction is ALLOW


class TestModes:
    @pytest.mark.parametrize("mode", ["emergency_stop", "safeguard_stop", "fault", "protective_stop", "reflex"])
    def test_a_stopped_controller_locks(self, bench, mode):
        assert rule_of(bench.step(mode=ArmMode(mode))) == (LATCH, mode)
        with pytest.raises(RobotError, match=mode):
            bench.monitor.acknowledge("ann", "looked")
        bench.step()
        assert rule_of(bench.send()) == (LATCH, mode)

    @pytest.mark.parametrize("mode", ["off", "idle", "offline", "manual"])
    def test_an_arm_that_leaves_operation_locks_one_that_never_entered_waits(self, bench, mode):
        assert rule_of(bench.step(mode=ArmMode(mode))) == (LATCH, "mode_lost")
        fresh = CellSafetyMonitor(cell(), watched=frozenset())
        verdict = fresh.observe(bench.state(mode=ArmMode(mode)), bench.now_ns)
        assert rule_of(verdict) == (HOLD, "not_ready")

    def test_a_program_stopped_at_the_pendant_locks(self, bench):
        assert rule_of(bench.step(program_running=False)) == (LATCH, "program_stopped")

    @pytest.mark.parametrize(
        ("changes", "rule"),
        [({"joint_temperature_c": 71.0}, "temperature"), ({"speed_scale": 0.19}, "speed_slider")],
    )
    def test_heat_and_slider_pause(self, bench, changes, rule):
        assert rule_of(bench.step(**changes)) == (HOLD, rule)
        assert rule_of(bench.send(**changes)) == (HOLD, rule)
        assert rule_of(bench.monitor.may_move(bench.state(**changes), bench.now_ns)) == (HOLD, rule)
        assert bench.monitor.may_move(bench.state(), bench.now_ns).reaction is ALLOW
        assert bench.send().reaction is ALLOW


class TestHeartbeats:
    def test_a_silent_collector_holds_then_stops(self, bench):
        found = []
        for _ in range(12):
            bench.wait(0.45, alive=(Heartbeat.POLICY,))
            found.append(bench.monitor.observe(bench.state(), bench.now_ns).reaction)
        assert found[:2] == [ALLOW, HOLD]
        assert found[-1] is STOP

    def test_a_late_policy_holds_then_goes_home(self, bench):
        found = {}
        for _ in range(62):
            bench.wait(0.495, alive=(Heartbeat.COLLECTOR,))
            verdict = bench.monitor.observe(bench.state(), bench.now_ns)
            found[rule_of(verdict)] = True
        assert bench.send().reaction is ALLOW  # nobody watches the policy by default

        bench = Bench(watched=frozenset({Heartbeat.COLLECTOR, Heartbeat.POLICY}))
        found = []
        for _ in range(62):
            bench.wait(0.495, alive=(Heartbeat.COLLECTOR,))
            found.append(rule_of(bench.monitor.observe(bench.state(), bench.now_ns)))
        assert found[1] == (ALLOW, "")
        assert found[3] == (HOLD, "policy_heartbeat")
        assert found[-1] == (STOP, "policy_gone")
        assert bench.monitor.enter(Phase.EPISODE, bench.now_ns).reaction is STOP
        assert bench.monitor.enter(Phase.TRANSIT, bench.now_ns).reaction is ALLOW  # the way home needs no policy
        bench.wait(0.008, alive=(Heartbeat.COLLECTOR,))
        assert bench.monitor.filter(command(z_m=0.25), bench.state(), bench.now_ns).reaction is ALLOW

    def test_while_the_arm_moves_the_policy_is_not_late(self):
        bench = Bench(watched=frozenset({Heartbeat.POLICY}))
        for _ in range(30):
            bench.wait(0.09, alive=())
            assert bench.monitor.observe(bench.state(mode=ArmMode.MOVING), bench.now_ns).reaction is ALLOW

    def test_a_dead_arm_process_locks_within_300_ms(self):
        bench = Bench(watched=frozenset({Heartbeat.ARM}), phase=Phase.IDLE)
        bench.monitor.beat(Heartbeat.ARM, bench.now_ns)
        bench.wait(0.19, alive=())
        assert bench.monitor.observe(bench.state(), bench.now_ns).reaction is ALLOW
        bench.wait(0.02, alive=())
        assert rule_of(bench.monitor.observe(bench.state(), bench.now_ns)) == (LATCH, "arm_heartbeat")

    def test_without_a_first_word_nothing_moves(self):
        monitor = CellSafetyMonitor(cell())
        bench = Bench()
        assert rule_of(monitor.observe(bench.state(), bench.now_ns)) == (HOLD, "collector_heartbeat")


class TestDevices:
    @pytest.mark.parametrize(
        ("facts", "expected"),
        [
            (CellFacts(camera_age_s=0.1), (ALLOW, "")),
            (CellFacts(camera_age_s=0.2), (ALLOW, "camera_age")),
            (CellFacts(camera_age_s=0.6), (HOLD, "camera_age")),
            (CellFacts(camera_age_s=2.1), (STOP, "camera_age")),
            (CellFacts(camera_age_s=math.nan), (STOP, "camera_age")),
            (CellFacts(camera_fault="frozen"), (HOLD, "camera")),
            (CellFacts(gripper_fault="overcurrent"), (STOP, "gripper")),
        ],
    )
    def test_camera_and_gripper(self, bench, facts, expected):
        bench.monitor.note(facts)
        assert rule_of(bench.step()) == expected

    def test_a_full_disk_allows_no_new_episode_and_ends_none(self, bench):
        bench.monitor.note(CellFacts(disk_free=0.14))
        assert bench.step().reaction is ALLOW
        assert rule_of(bench.monitor.enter(Phase.EPISODE, bench.now_ns)) == (HOLD, "disk")


class TestLatch:
    def test_a_latch_of_an_earlier_process_is_in_force(self):
        bench = Bench(phase=Phase.IDLE, latched=Latch("box", "was outside", 1.0))
        assert rule_of(bench.send()) == (LATCH, "box")
        assert bench.monitor.enter(Phase.EPISODE, bench.now_ns).reaction is LATCH
        bench.step()
        bench.monitor.acknowledge("ann", "looked")
        assert bench.monitor.enter(Phase.TRANSIT, bench.now_ns).reaction is ALLOW

    def test_the_first_reason_stays(self, bench):
        bench.step(mode=ArmMode.EMERGENCY_STOP)
        bench.force(70.0)
        assert bench.monitor.latched.rule == "emergency_stop"

    @pytest.mark.parametrize("words", [("", "looked"), ("ann", "  ")])
    def test_a_name_and_a_reason_are_needed(self, bench, words):
        bench.force(70.0)
        bench.step()
        with pytest.raises(RobotError, match="name and a reason"):
            bench.monitor.acknowledge(*words)

    def test_after_it_nothing_moves_until_something_new_begins(self, bench):
        bench.force(70.0)
        bench.step()
        bench.monitor.acknowledge("ann", "looked")
        assert rule_of(bench.send()) == (HOLD, "phase")


class TestRecovery:
    @pytest.fixture
    def bench(self):
        return Bench(cell(recovery=RecoveryLimits(auto_recover=True)))

    def stop(self, bench):
        return bench.step(mode=ArmMode.PROTECTIVE_STOP)

    def clear(self, bench):
        bench.wait(6.1)
        bench.step(mode=ArmMode.PROTECTIVE_STOP)
        verdict = bench.monitor.may_recover(bench.state(mode=ArmMode.PROTECTIVE_STOP), bench.now_ns)
        bench.step()
        return verdict

    def test_it_waits_and_then_rises_slowly(self, bench):
        assert rule_of(self.stop(bench)) == (STOP, "protective_stop")
        stopped = bench.state(mode=ArmMode.PROTECTIVE_STOP)
        assert "6 s must pass" in bench.monitor.may_recover(stopped, bench.now_ns).reason
        bench.wait(6.1)
        pressed = dataclasses.replace(stopped, wrench=(0.0, 0.0, 11.0, 0.0, 0.0, 0.0))
        assert "11 N" in bench.monitor.may_recover(pressed, bench.now_ns).reason
        verdict = self.clear(bench)
        assert verdict.reaction is ALLOW
        assert verdict.command.speed_m_s == 0.02
        assert bench.send(verdict.command).reaction is STOP
        bench.monitor.enter(Phase.RETRACT, bench.now_ns)
        allowed = bench.send(verdict.command)
        assert allowed.command.target.position_m == pytest.approx((0.57, 0.0, 0.23))
        assert bench.monitor.enter(Phase.TRANSIT, bench.now_ns).reaction is ALLOW

    def test_the_same_place_twice_waits_for_a_person(self, bench):
        self.stop(bench)
        self.clear(bench)
        bench.put(x_m=0.60)
        assert self.stop(bench).reaction is LATCH
        assert "same place" in bench.monitor.latched.reason

    def test_the_fourth_within_an_hour_waits_for_a_person(self, bench):
        for y_m in (-0.1, 0.0, 0.1):
            bench.put(y_m=y_m)
            assert self.stop(bench).reaction is STOP
            assert self.clear(bench).reaction is ALLOW
        bench.put(x_m=0.46)
        assert self.stop(bench).reaction is LATCH
        assert "number 4" in bench.monitor.latched.reason

    def test_what_earlier_processes_cleared_counts(self):
        config = cell(recovery=RecoveryLimits(auto_recover=True))
        stops = [(10**12 - minutes * 60 * 10**9, (0.46, 0.1 * minutes, 0.2)) for minutes in (10, 20, 30)]
        assert self.stop(Bench(config, stops=stops)).reaction is LATCH
        assert self.stop(Bench(config, stops=stops[1:])).reaction is STOP
        near = Bench(config, stops=[(10**12 - 60 * 10**9, (0.56, 0.0, 0.2))])
        assert self.stop(near).reaction is LATCH
        assert "same place" in near.monitor.latched.reason

    def test_emergency_stops_are_never_cleared(self, bench):
        assert bench.step(mode=ArmMode.EMERGENCY_STOP).reaction is LATCH

    def test_nothing_to_recover_from(self, bench):
        assert bench.monitor.may_recover(bench.state(), bench.now_ns).reaction is HOLD
