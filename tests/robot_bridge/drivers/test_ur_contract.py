"""What every arm does, asked of UrArm through ``ur_rtde`` and a controller of another process."""

from contextlib import contextmanager

import pytest

pytest.importorskip("rtde_control", reason="needs ur_rtde: pip install qtopt[ur]")

from robot_bridge.contracts import MotionOutcome
from robot_bridge.drivers.ur import DRIVER
from tests.contracts.arm import ArmContract
from tests.robot_bridge.drivers.ur_server import Controller

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(100)]


@pytest.fixture(scope="module")
def controller():
    controller = Controller("127.0.5.21")
    yield controller
    controller.close()


@pytest.fixture(scope="module")
def options(controller):
    """The controller's watchdog waits for a second, as the machine that tests is busier than a robot's."""
    return DRIVER.options(host=controller.host, watchdog_hz=1.0)


@pytest.fixture(scope="module")
def kept():
    """The driver that is connected, if one is."""
    arms = []
    yield arms
    for arm in arms:
        arm.close()


class TestUrArm(ArmContract):
    @pytest.fixture
    def open_arm(self, options, kept):
        """A controller takes one driver at a time."""
        while kept:
            kept.pop().close()
        return lambda: DRIVER.open(options)

    @pytest.fixture
    def arm(self, options, kept):
        """The driver of the test before, which may have stopped it: ``ur_rtde`` takes its time to connect."""
        if not kept:
            arm = DRIVER.open(options)
            arm.connect(self.DEADLINE_S)
            kept.append(arm)
        try:
            kept[0].recover()
            assert self.go(kept[0], self.start(), speed_m_s=self.RETURN_M_S).outcome is MotionOutcome.REACHED
        except BaseException:
            kept.pop().close()
            raise
        return kept[0]

    def test_a_second_client_is_refused_or_takes_nothing_over(self, arm, options):
        """Here the arm of the test before is kept open."""
        super().test_a_second_client_is_refused_or_takes_nothing_over(arm, lambda: DRIVER.open(options))

    @pytest.fixture
    def stop_channel(self, options):
        return DRIVER.open_stop_channel(options)

    @pytest.fixture
    def unready(self, controller):
        @contextmanager
        def safeguard():
            controller("safeguard")
            try:
                yield
            finally:
                controller("safeguard", on=False)

        return safeguard
