"""What the fault matrix takes for a wrong label."""

import pytest

from qtopt.apps.robot.grasp_faults import wrong_label
from qtopt.types import Outcome
from sim.faults.cases import named

BLIND = named("exposure up by 40 % between the pictures")
NUMB = named("gripper does not feel its object")
SLIPS = named("gripper drops the object on the way")


@pytest.mark.parametrize(
    ("case", "outcome", "held", "found"),
    [
        (BLIND, Outcome.UNKNOWN, True, 0),
        (BLIND, Outcome.SUCCESS, True, 1),
        (BLIND, Outcome.SUCCESS, False, 2),
        (NUMB, Outcome.SUCCESS, True, 0),
        (NUMB, Outcome.SUCCESS, False, 1),
        (NUMB, Outcome.SUCCESS, None, 1),
        (NUMB, Outcome.ABORTED, True, 0),
        (SLIPS, Outcome.DROPPED, False, 0),
        (SLIPS, Outcome.DROPPED, True, 1),
    ],
)
def test_a_label_is_wrong_where_it_is_not_allowed_or_not_true(case, outcome, held, found):
    assert len(wrong_label(case, outcome, held=held)) == found
