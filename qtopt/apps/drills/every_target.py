"""Everything that fuzzing feeds."""

from pathlib import Path

import numpy as np

from qtopt.apps.drills.answer_targets import answer_targets
from qtopt.apps.drills.file_targets import file_targets
from qtopt.apps.drills.request_targets import request_targets
from qtopt.apps.drills.targets import Target


def every_target(rng: np.random.Generator, room: Path) -> list[Target]:
    """Returns every target: what a server takes, what its clients take, what is read from a disk.

    Args:
        rng: chance of the seeds' content.
        room: an empty directory on a fast disk.
    """
    return [*request_targets(rng), *answer_targets(rng), *file_targets(rng, room)]
