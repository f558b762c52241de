"""What every arm driver must do. The arm moves: within 15 cm of ``START``, slowly, in free air.

A subclass gives ``open_arm`` and the place to begin, and widens the class's bounds only where its arm is known to be
worse, saying why.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from qtopt.errors import ConfigError, RobotError
from robot_bridge.conformance.watch import (
    Motion,
    Watch,
    distance_m,
    is_old,
    is_ready,
    recovers,
    shifted,
    speed_m_s,
    wait_standing,
    wait_until,
)
from robot_bridge.contracts import (
    Arm,
    ArmMode,
    Capability,
    MotionOutcome,
    MotionResult,
    Pose,
    StopChannel,
    quaternion_distance_rad,
)
from robot_bridge.displacement import to_pose, to_tool
from robot_bridge.robot import ToolPose

STILL_M_S = 0.002


class ArmContract:
    """Behaviour of an ``Arm`` and of its ``StopChannel``.

    Attributes:
        START: tool pose with 15 cm of free air around; the tool points down there.
        ACCURACY_M: how near to its target a motion ends.
        ACCURACY_RAD: the same for orientation.
        STRAIGHT_M: how far it strays from the straight line.
        SPEED_M_S: of test motions.
        RETURN_M_S: of the way back to ``START`` between two tests.
        TOP_SPEED: the speed it reports is at most this times the speed asked for.
        ACCEL_M_S2: of test motions, and of stops.
        REACTION_S: from a call of ``stop`` to the beginning of braking, on the machine that runs the test.
        REPORT_S: age at most of a report in normal operation.
        DEADLINE_S: for any motion here.
    """

    START: ClassVar[ToolPose] = ToolPose(0.6, 0.0, 0.25, 0.0)
    ACCURACY_M: ClassVar[float] = 0.003
    ACCURACY_RAD: ClassVar[float] = 0.02
    STRAIGHT_M: ClassVar[float] = 0.004
    SPEED_M_S: ClassVar[float] = 0.10
    RETURN_M_S: ClassVar[float] = 0.25
    TOP_SPEED: ClassVar[float] = 1.2
    ACCEL_M_S2: ClassVar[float] = 0.5
    REACTION_S: ClassVar[float] = 0.15
    REPORT_S: ClassVar[float] = 0.10
    DEADLINE_S: ClassVar[float] = 20.0

    @pytest.fixture
    def open_arm(self) -> Callable[[], Arm]:
        """Returns a maker of unconnected arms, all for one controller that is ready to move."""
        raise NotImplementedError("give a fixture open_arm: a function that returns an unconnected Arm")

    @pytest.fixture
    def stop_channel(self) -> StopChannel | None:
        """Returns an unconnected stop channel to the same controller; None where the driver has none."""
        return None

    @pytest.fixture
    def unready(self) -> Callable[[], contextlib.AbstractContextManager[None]] | None:
        """Returns a maker of a context within which the controller will not move; None: cannot be brought about."""
        return None

    @pytest.fixture
    def silent(self) -> Callable[[], contextlib.AbstractContextManager[None]] | None:
        """Returns a maker of a context within which the controller says nothing; None: cannot be brought about."""
        return None

    @pytest.fixture
    def arm(self, open_arm: Callable[[], Arm]) -> Iterator[Arm]:
        """A connected arm at ``START``."""
        arm = open_arm()
        arm.connect(self.DEADLINE_S)
        try:
            assert self.go(arm, self.start(), speed_m_s=self.RETURN_M_S).outcome is MotionOutcome.REACHED
            yield arm
        finally:
            arm.close()

    def start(self) -> Pose:
        """Returns the pose where each test begins."""
        return to_pose(self.START)

    def go(
        self, arm: Arm, target: Pose, deadline_s: float | None = None, speed_m_s: float | None = None
    ) -> MotionResult:
        """Moves at the class's speed and returns the result."""
        return arm.move_to(target, speed_m_s or self.SPEED_M_S, self.ACCEL_M_S2, deadline_s or self.DEADLINE_S)

    def stop_way_m(self) -> float:
        """Returns how far the tool may go on after a stop."""
        braking = self.SPEED_M_S**2 / (2 * self.ACCEL_M_S2)
        return braking + self.SPEED_M_S * self.REACTION_S + self.ACCURACY_M

    def assert_stays(self, arm: Arm, seconds: float = 0.6) -> None:
        """Asserts that the arm stands, and goes on standing."""
        wait_standing(arm, 2.0)
        where = arm.state().pose
        time.sleep(seconds)
        assert distance_m(arm.state().pose, where) < 0.002

    def under_way(self, arm: Arm, *, y_m: float = 0.12) -> Motion:
        """Starts a motion along y in a thread, and returns once the tool is well under way."""
        start = arm.state().pose
        motion = Motion(lambda: self.go(arm, shifted(self.start(), y_m=y_m)))
        wait_until(lambda: distance_m(arm.state().pose, start) > 0.02, 10.0, "the tool under way")
        return motion

    def test_capabilities_are_honest(self, arm: Arm) -> None:
        """What it claims it has; what it has it claims."""
        claimed = arm.capabilities
        assert all(isinstance(each, Capability) for each in claimed)
        assert Capability.CARTESIAN_MOVE in claimed
        forces = {Capability.WRENCH_MEASURED, Capability.WRENCH_ESTIMATED} & claimed
        assert len(forces) <= 1
        assert (arm.state().wrench is not None) == bool(forces)
        if Capability.JOINT_MOVE not in claimed:
            assert arm.move_joints((0.0,) * 6, 0.1, 1.0).outcome is MotionOutcome.REJECTED
        else:
            assert len(arm.state().joints_rad) >= 4

    def test_reports_are_new_sound_and_of_one_clock(self, arm: Arm) -> None:
        """The controller's clock advances with the host's, and every report makes sense."""
        with Watch(arm) as watch:
            time.sleep(0.6)
        assert len(watch.states) >= 10
        first, last = watch.states[0], watch.states[-1]
        elapsed_s = (last.t_host_ns - first.t_host_ns) * 1e-9
        assert last.t_controller_s - first.t_controller_s == pytest.approx(elapsed_s, rel=0.3)
        for state in watch.states:
            assert state.is_finite()
            assert math.hypot(*state.pose.quaternion_xyzw) == pytest.approx(1.0, abs=1e-3)
            assert state.mode.can_move
            assert 0.0 < state.speed_scale <= 1.0
        assert (time.monotonic_ns() - arm.state().t_host_ns) * 1e-9 < self.REPORT_S

    def test_asking_for_the_state_takes_no_time(self, arm: Arm) -> None:
        """A state is at hand; nobody waits for it."""
        began_s = time.monotonic()
        for _ in range(100):
            arm.state()
        assert time.monotonic() - began_s < 1.0

    def test_a_motion_ends_where_it_was_to(self, arm: Arm) -> None:
        """REACHED means there, and standing."""
        for target in (shifted(self.start(), 0.04, -0.06, 0.03), shifted(self.start(), z_m=-0.03)):
            result = self.go(arm, target)
            assert result.outcome is MotionOutcome.REACHED, result
            state = arm.state()
            assert distance_m(state.pose, target) < self.ACCURACY_M
            assert quaternion_distance_rad(state.pose, target) < self.ACCURACY_RAD
            assert result.pose is not None
            assert distance_m(result.pose, target) < self.ACCURACY_M
            assert speed_m_s(state) < 0.02

    def test_it_turns(self, arm: Arm) -> None:
        """The azimuth follows, the tool point stays."""
        turned = ToolPose(self.START.x_m, self.START.y_m, self.START.z_m, self.START.yaw_rad + 0.5)
        assert self.go(arm, to_pose(turned)).outcome is MotionOutcome.REACHED
        assert to_tool(arm.state().pose).yaw_rad == pytest.approx(turned.yaw_rad, abs=self.ACCURACY_RAD)
        assert distance_m(arm.state().pose, self.start()) < self.ACCURACY_M

    def test_the_way_is_straight_and_not_too_fast(self, arm: Arm) -> None:
        """A straight line, at the speed asked for."""
        target = shifted(self.start(), 0.06, 0.08, -0.04)
        with Watch(arm) as watch:
            assert self.go(arm, target).outcome is MotionOutcome.REACHED
        assert watch.stray_m(self.start(), target) < self.STRAIGHT_M
        top_m_s = watch.top_speed_m_s()
        assert 0.5 * self.SPEED_M_S < top_m_s < self.TOP_SPEED * self.SPEED_M_S, f"{top_m_s:.3f} m/s reported"

    @pytest.mark.parametrize("how", ["stop", "hold"])
    def test_it_is_stopped_from_another_thread(self, arm: Arm, how: str) -> None:
        """A stop ends the motion within a bounded way; nothing goes on; the next command moves again."""
        motion = self.under_way(arm)
        where = arm.state().pose
        began_s = time.monotonic()
        if how == "stop":
            arm.stop(self.ACCEL_M_S2)
        else:
            arm.hold()
        assert time.monotonic() - began_s < 0.5, f"{how} did not return at once"
        assert motion.result(5.0).outcome is MotionOutcome.STOPPED
        self.assert_stays(arm)
        way_m = distance_m(arm.state().pose, where)
        # A hold brakes as gently as the driver likes.
        assert way_m < self.stop_way_m() * (1.0 if how == "stop" else 2.0), f"{way_m:.4f} m after {how}"
        assert self.go(arm, self.start(), speed_m_s=self.RETURN_M_S).outcome is MotionOutcome.REACHED

    def test_stopping_what_stands_does_no_harm(self, arm: Arm) -> None:
        """Twice as well."""
        arm.stop(self.ACCEL_M_S2)
        arm.stop(self.ACCEL_M_S2)
        self.assert_stays(arm, 0.2)
        assert self.go(arm, shifted(self.start(), y_m=0.02)).outcome is MotionOutcome.REACHED

    def test_a_deadline_is_kept(self, arm: Arm) -> None:
        """A motion that takes longer ends in TIMEOUT, standing."""
        began_s = time.monotonic()
        result = self.go(arm, shifted(self.start(), y_m=0.12), deadline_s=0.5, speed_m_s=0.04)
        assert result.outcome is MotionOutcome.TIMEOUT, result
        assert time.monotonic() - began_s < 2.0
        self.assert_stays(arm)
        assert distance_m(arm.state().pose, shifted(self.start(), y_m=0.12)) > 0.05

    def test_what_is_out_of_reach_is_refused(self, arm: Arm) -> None:
        """An impossible target moves nothing, and is no exception."""
        result = self.go(arm, shifted(self.start(), x_m=5.0), deadline_s=3.0)
        assert result.outcome in (MotionOutcome.REJECTED, MotionOutcome.FAULT), result
        assert result.reason
        assert distance_m(arm.state().pose, self.start()) < 0.01

    def test_a_stream_is_followed_and_its_end_is_a_standstill(self, arm: Arm) -> None:
        """Targets that stop coming stop the arm."""
        if Capability.CARTESIAN_SERVO not in arm.capabilities:
            assert arm.servo(self.start(), 0.2).outcome is MotionOutcome.REJECTED
            return
        for number in range(1, 31):
            target = shifted(self.start(), y_m=0.0015 * number)
            result = arm.servo(target, 0.2)
            assert result.outcome is MotionOutcome.REACHED, result
            time.sleep(0.02)
        assert distance_m(arm.state().pose, self.start()) > 0.02
        time.sleep(0.3)  # longer than the last target is valid
        self.assert_stays(arm)
        assert distance_m(arm.state().pose, target) < 0.03
        assert self.go(arm, self.start(), speed_m_s=self.RETURN_M_S).outcome is MotionOutcome.REACHED

    def test_an_arm_that_is_not_ready_refuses(
        self, arm: Arm, unready: Callable[[], contextlib.AbstractContextManager[None]] | None
    ) -> None:
        """Nothing moves then, nor by itself afterwards."""
        if unready is None:
            pytest.skip("this subject cannot be made unready")
        with unready():
            wait_until(lambda: not is_ready(arm), 3.0, "not ready")
            result = self.go(arm, shifted(self.start(), y_m=0.05), deadline_s=3.0)
            assert result.outcome in (MotionOutcome.REJECTED, MotionOutcome.FAULT), result
            assert result.reason
        self.assert_stays(arm)
        assert distance_m(arm.state().pose, self.start()) < 0.01

    def test_a_fault_in_motion_ends_it_for_good(
        self, arm: Arm, unready: Callable[[], contextlib.AbstractContextManager[None]] | None
    ) -> None:
        """The result says so; when the fault is over, the arm goes on standing."""
        if unready is None:
            pytest.skip("this subject cannot be made unready")
        motion = self.under_way(arm)
        with unready():
            assert motion.result(10.0).outcome in (MotionOutcome.FAULT, MotionOutcome.STOPPED)
        self.assert_stays(arm, 0.8)
        assert distance_m(arm.state().pose, shifted(self.start(), y_m=0.12)) > 0.02

    def test_what_was_not_ready_moves_again_once_it_was_recovered(
        self, arm: Arm, unready: Callable[[], contextlib.AbstractContextManager[None]] | None
    ) -> None:
        """``recover`` moves nothing; the next command does."""
        if unready is None:
            pytest.skip("this subject cannot be made unready")
        with unready():
            wait_until(lambda: not is_ready(arm), 3.0, "not ready")
        wait_until(lambda: recovers(arm), 3.0, "an arm that recovers")
        self.assert_stays(arm, 0.3)
        assert self.go(arm, shifted(self.start(), y_m=0.03)).outcome is MotionOutcome.REACHED

    def test_silence_is_seen_and_nothing_is_moved(
        self, open_arm: Callable[[], Arm], silent: Callable[[], contextlib.AbstractContextManager[None]] | None
    ) -> None:
        """No old report passes for a new one, and a motion asked for meanwhile ends in good time, never as REACHED."""
        if silent is None:
            pytest.skip("this subject cannot be made silent")
        with contextlib.closing(open_arm()) as arm:
            arm.connect(self.DEADLINE_S)
            assert self.go(arm, self.start(), speed_m_s=self.RETURN_M_S).outcome is MotionOutcome.REACHED
            with silent():
                wait_until(lambda: is_old(arm, 0.5), 5.0, "reports known to be old")
                began_s = time.monotonic()
                result = self.go(arm, shifted(self.start(), y_m=0.05), deadline_s=2.0)
                assert result.outcome not in (MotionOutcome.REACHED, MotionOutcome.CONTACT), result
                assert result.reason
                assert time.monotonic() - began_s < 5.0
        with contextlib.closing(open_arm()) as again:
            again.connect(self.DEADLINE_S)
            assert distance_m(again.state().pose, self.start()) < 0.01

    def test_a_second_client_is_refused_or_takes_nothing_over(self, arm: Arm, open_arm: Callable[[], Arm]) -> None:
        """Its coming and going may stop the first one's motion, and leaves the arm to the first one."""
        motion = self.under_way(arm)
        with contextlib.closing(open_arm()) as second, contextlib.suppress(RobotError, ConfigError):
            second.connect(3.0)
        result = motion.result(10.0)
        assert result.outcome in (MotionOutcome.REACHED, MotionOutcome.STOPPED, MotionOutcome.FAULT), result
        self.assert_stays(arm, 0.3)
        wait_until(lambda: recovers(arm), 3.0, "an arm that recovers")  # where the other's stop holds for all
        assert self.go(arm, self.start(), speed_m_s=self.RETURN_M_S).outcome is MotionOutcome.REACHED

    def test_the_stop_channel_stops_without_the_driver(self, arm: Arm, stop_channel: StopChannel | None) -> None:
        """It sees the arm move, stops it within a bounded way, and nothing goes on by itself."""
        if stop_channel is None:
            pytest.skip("this driver has no stop channel")
        stop_channel.connect(self.DEADLINE_S)
        try:
            motion = self.under_way(arm)
            assert distance_m(stop_channel.state().pose, arm.state().pose) < 0.05
            where = arm.state().pose
            assert stop_channel.stop()
            assert motion.result(10.0).outcome is not MotionOutcome.REACHED
            wait_until(lambda: speed_m_s(stop_channel.state()) < STILL_M_S, 3.0, "standstill on the stop channel")
            assert distance_m(stop_channel.state().pose, where) < 2 * self.stop_way_m()
            stopped = stop_channel.state().pose
            time.sleep(0.8)
            assert distance_m(stop_channel.state().pose, stopped) < 0.002
        finally:
            stop_channel.close()

    def test_zeroed_forces_are_small_in_free_air(self, arm: Arm) -> None:
        """Contact thresholds need a zero."""
        arm.zero_wrench()
        time.sleep(0.3)
        wrench = arm.state().wrench
        assert wrench is None or math.hypot(*wrench[:3]) < 5.0

    def test_closing_twice_does_nothing_more(self, open_arm: Callable[[], Arm]) -> None:
        """The arm can be opened again afterwards, and has not moved meanwhile."""
        with contextlib.closing(open_arm()) as arm:
            arm.connect(self.DEADLINE_S)
            where = arm.state().pose
            arm.close()
        with contextlib.closing(open_arm()) as again:
            again.connect(self.DEADLINE_S)
            wait_until(lambda: again.state().mode is not ArmMode.OFFLINE, 3.0, "a report")
            assert distance_m(again.state().pose, where) < 0.002

    def test_closing_in_motion_stops(self, open_arm: Callable[[], Arm]) -> None:
        """Every way out leaves the arm standing."""
        with contextlib.closing(open_arm()) as arm:
            arm.connect(self.DEADLINE_S)
            assert self.go(arm, self.start()).outcome is MotionOutcome.REACHED
            motion = self.under_way(arm)
            where = arm.state().pose
            arm.close()
            assert motion.result(10.0).outcome is not MotionOutcome.REACHED
        with contextlib.closing(open_arm()) as again:
            again.connect(self.DEADLINE_S)
            self.assert_stays(again)
            assert distance_m(again.state().pose, where) < 2 * self.stop_way_m()
