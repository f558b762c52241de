"""What every gripper driver must do. The fingers move: keep yours away."""

import time
from typing import ClassVar

import pytest

from robot_bridge.conformance.watch import wait_until
from robot_bridge.contracts import Capability, Gripper, ObjectSensed


class GripperContract:
    """Behaviour of a ``Gripper`` with nothing between its fingers.

    Attributes:
        WIDTH_M: how near to what was asked the fingers come.
        SPEED_M_S: of test motions.
        FORCE_N: of test motions.
        DEADLINE_S: for a motion.
    """

    WIDTH_M: ClassVar[float] = 0.003
    SPEED_M_S: ClassVar[float] = 0.08
    FORCE_N: ClassVar[float] = 20.0
    DEADLINE_S: ClassVar[float] = 5.0

    @pytest.fixture
    def gripper(self) -> Gripper:
        """Returns a connected, activated gripper."""
        raise NotImplementedError("give a fixture gripper: connected and activated")

    def test_its_range_makes_sense(self, gripper: Gripper) -> None:
        """Metres, rising, of a hand's size."""
        low, high = gripper.width_range_m
        assert -0.001 <= low < high <= 0.3
        assert Capability.GRIPPER_WIDTH in gripper.capabilities

    def test_it_opens_and_closes_where_it_is_told(self, gripper: Gripper) -> None:
        """A motion returns standing, with the width that ``state`` gives, too."""
        low, high = gripper.width_range_m
        for share in (1.0, 0.5, 0.0, 0.5):
            width_m = low + share * (high - low)
            reached = gripper.move(width_m, self.SPEED_M_S, self.FORCE_N, self.DEADLINE_S)
            assert not reached.moving
            assert not reached.fault
            assert reached.width_m == pytest.approx(width_m, abs=self.WIDTH_M)
            assert gripper.state().width_m == pytest.approx(reached.width_m, abs=self.WIDTH_M)

    def test_beyond_its_range_it_goes_to_the_end_of_it(self, gripper: Gripper) -> None:
        """A width that no finger reaches is clamped."""
        low, high = gripper.width_range_m
        assert gripper.move(high + 0.1, self.SPEED_M_S, self.FORCE_N, self.DEADLINE_S).width_m == pytest.approx(
            high, abs=self.WIDTH_M
        )
        closed = gripper.move(low - 0.1, self.SPEED_M_S, self.FORCE_N, self.DEADLINE_S)
        assert closed.width_m == pytest.approx(low, abs=self.WIDTH_M)

    def test_nothing_is_not_an_object(self, gripper: Gripper) -> None:
        """Fingers closed on nothing sense nothing, or do not know."""
        low, high = gripper.width_range_m
        gripper.move(high, self.SPEED_M_S, self.FORCE_N, self.DEADLINE_S)
        closed = gripper.move(low, self.SPEED_M_S, self.FORCE_N, self.DEADLINE_S)
        assert closed.object_sensed is not ObjectSensed.YES

    def test_activating_twice_does_not_move_it(self, gripper: Gripper) -> None:
        """What is active stays as it is."""
        low, high = gripper.width_range_m
        half = gripper.move((low + high) / 2, self.SPEED_M_S, self.FORCE_N, self.DEADLINE_S).width_m
        gripper.activate(self.DEADLINE_S)
        assert gripper.state().width_m == pytest.approx(half, abs=self.WIDTH_M)

    def test_reports_are_new(self, gripper: Gripper) -> None:
        """Each has its time."""
        before = gripper.state().t_host_ns
        wait_until(lambda: gripper.state().t_host_ns > before, 1.0, "a newer report")
        assert abs(time.monotonic_ns() - gripper.state().t_host_ns) < 1_000_000_000

    def test_closing_the_connection_leaves_the_fingers(self, gripper: Gripper) -> None:
        """Twice does nothing more."""
        gripper.close()
        gripper.close()
