"""The table of all steps: what is asked for comes back, wherever its frames lie, and what was given up says so."""

import numpy as np
import pytest

from qtopt.replay.schema import STEP_DTYPE
from qtopt.replay.shelf import Retired
from qtopt.replay.step_table import StepTable


def rows(sizes):
    made = np.zeros(len(sizes), STEP_DTYPE)
    made["frame_bytes"], made["rewards"] = sizes, sizes
    return made


def at(*positions):
    return np.array(positions, np.int64)


def test_rows_come_back_by_position_and_frames_lie_end_to_end():
    table = StepTable(100)
    table.extend(rows([3, 5]))
    table.extend(rows([7, 11, 13]))
    assert (table.base, table.end) == (100, 105)
    assert table.take(at(104, 100, 102))["rewards"].tolist() == [13, 3, 7]
    assert table.frame_offsets(at(101, 104, 102), at(100, 102, 102)).tolist() == [3, 18, 0]


def test_damaged_sizes_do_not_move_the_frames_of_others():
    table = StepTable()
    table.extend(rows([9, 9, 9]), at(0, 4, 9), frame_bytes=20)
    table.extend(rows([1, 1]))
    assert table.frame_offsets(at(1, 2, 3, 4), at(0, 0, 0, 3)).tolist() == [4, 9, 20, 1]


def test_what_was_dropped_is_retired_and_the_rest_stays_where_it_is():
    table = StepTable()
    table.extend(rows(range(1, 200)))
    view = table.take(at(150))
    table.drop_before(120)
    table.extend(rows([1000]))
    assert (table.base, table.end) == (120, 200)
    assert table.take(at(150, 199))["rewards"].tolist() == [view["rewards"][0], 1000]
    assert table.frame_offsets(at(151), at(150)).tolist() == [151]
    for ask in (table.take, lambda positions: table.frame_offsets(at(150), positions)):
        with pytest.raises(Retired) as gone:
            ask(at(150, 119, 7))
        assert gone.value.positions == [119, 7]
