"""What counts as held in truth: in the air where the tool was highest, before the fingers were told to open."""

import json

import pytest

from qtopt.apps.robot.agreement import read_truth
from qtopt.errors import ConfigError

EVERY_S = 0.05
UP_M, CLEAR_M, DROP_M = 0.11, 0.2, 0.06


def rows(*parts):
    """Returns rows of parts: how many, height of the tool, lowest point of what is touched, told opening."""
    told = [(z_m, low_m, width_m) for count, z_m, low_m, width_m in parts for _ in range(count)]
    return [
        {"cell": "a", "time_s": number * EVERY_S, "z_m": z_m, "told_width_m": width_m, "touched_low_m": low_m}
        for number, (z_m, low_m, width_m) in enumerate(told)
    ]


def held(tmp_path, parts, from_s=0.0, to_s=100.0):
    path = tmp_path / "truth.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows(*parts)))
    return read_truth([path])["a"].held(from_s, to_s)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(9, UP_M, 0.06, 0.0), (9, CLEAR_M, 0.15, 0.0), (9, DROP_M, 0.01, 0.0), (9, DROP_M, 0.0, 0.1)], True),
        # Lost after the judge's look: it lies in the bin as what is let go does.
        ([(9, CLEAR_M, 0.15, 0.0), (9, DROP_M, None, 0.0), (9, DROP_M, None, 0.1)], True),
        ([(9, UP_M, 0.06, 0.0), (9, CLEAR_M, None, 0.0), (9, CLEAR_M, None, 0.1)], False),
        # What stands on the floor and reaches up between the fingers is not in the air.
        ([(9, UP_M, 0.0, 0.0)], False),
        ([(9, UP_M, None, 0.0)], False),
        # A tool that was not lifted is among objects that lie on others.
        ([(9, DROP_M, 0.03, 0.0)], False),
        # Contact comes and goes from one sample to the next.
        ([(9, CLEAR_M, 0.15, 0.0), (2, CLEAR_M, None, 0.0), (9, DROP_M, 0.05, 0.0), (1, DROP_M, 0.0, 0.1)], True),
        # What is touched once the fingers were told to open does not count.
        ([(9, CLEAR_M, None, 0.0), (9, CLEAR_M, 0.15, 0.1)], False),
    ],
)
def test_held_is_in_the_air_where_the_tool_was_highest(tmp_path, parts, expected):
    assert held(tmp_path, parts) is expected


def test_what_was_not_recorded_is_not_known(tmp_path):
    parts = [(9, CLEAR_M, 0.15, 0.0)]
    assert held(tmp_path, parts, 10.0, 11.0) is None
    assert held(tmp_path, parts, -2.0, -1.0) is None


def test_another_file_is_no_record(tmp_path):
    path = tmp_path / "truth.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ConfigError, match="no record of serve-sim"):
        read_truth([path])
