"""An arm that lives in leaps is reported evenly."""

import dataclasses
import math

import pytest

from sim.servers.xarm_frames import Snapshot
from sim.servers.xarm_samples import Samples

SPEED_MM_S = 100.0


def snapshot(time_s):
    names = [field.name for field in dataclasses.fields(Snapshot) if field.default is dataclasses.MISSING]
    values = dict.fromkeys(names, 0) | {"joints_rad": (time_s,) * 7, "torques_nm": (math.sin(time_s),) * 7}
    pose = (SPEED_MM_S * time_s, 0.0, 250.0, math.pi, 0.0, math.remainder(math.pi - 0.1 + time_s, 2 * math.pi))
    return Snapshot(**{**values, "tcp_offset": (0.0,) * 6, "pose": pose}, time_s=time_s)


def test_reports_are_a_period_apart_whenever_the_arm_is_looked_at():
    samples = Samples(0.01)
    looks_s = (0.0, 0.0125, 0.0167, 0.0917, 0.0958, 0.1083, 0.2)
    told = [each for time_s in looks_s for each in samples.take(snapshot(time_s))][1:]
    assert len(told) == 20
    for count, each in enumerate(told, 1):
        assert each.pose[0] == pytest.approx(SPEED_MM_S * 0.01 * count)
        assert math.remainder(each.pose[5] - (math.pi - 0.1 + 0.01 * count), 2 * math.pi) == pytest.approx(0, abs=1e-9)
    assert len({each.torques_nm for each in told}) == 20, "no two reports are the same"


def test_an_arm_that_is_held_up_is_reported_all_the_same():
    samples = Samples(0.01)
    samples.take(snapshot(1.0))
    assert [each.time_s for each in samples.take(snapshot(1.0))] == [1.0]
    assert len(samples.take(snapshot(9.0))) == 25, "an arm that slept is not caught up with for ever"
