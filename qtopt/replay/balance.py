"""Probabilities of four groups, two by two, when the share of a row or of a column is asked for."""

import numpy as np
import numpy.typing as npt

ROUNDS = 32


def balanced(
    counts: npt.NDArray[np.integer], row_share: float | None = None, column_share: float | None = None
) -> npt.NDArray[np.float64]:
    """Returns the probability of each group, float64 (4,), for groups numbered ``row + 2 * column``.

    Proportional to ``counts`` where nothing is asked; else fitted, in turns, so that row 1 gets ``row_share`` and
    column 1 gets ``column_share`` with the proportions within left as they are. An empty group gets nothing; a share
    that cannot be had, since everything there is on one side, is ignored. All zero when all groups are empty.

    Args:
        counts: integers, (4,).
        row_share: in [0, 1], the share of groups 1 and 3.
        column_share: in [0, 1], the share of groups 2 and 3.
    """
    table = np.array(counts, np.float64).reshape(2, 2).T  # [row, column]
    if not table.any():
        return np.zeros(4)
    table /= table.sum()
    for _ in range(ROUNDS if row_share is not None and column_share is not None else 1):
        if row_share is not None:
            _scale(table, row_share)
        if column_share is not None:
            _scale(table.T, column_share)
    flat = table.T.reshape(4)
    return np.asarray(flat / flat.sum())


def _scale(table: npt.NDArray[np.float64], share: float) -> None:
    """Scales the rows of ``table`` in place so that the second holds ``share`` of all."""
    sums = table.sum(1)
    if sums.min() > 0:
        table *= (np.array([1 - share, share]) / sums)[:, None]
