"""A process that fills a store and says on its standard output what was acknowledged; killed by test_crash."""

import os
import sys
import threading
from pathlib import Path

import numpy as np

from qtopt.replay import EpisodeStore, ReplayConfig, StoreFormat
from tests.episodes import make_episode

THREADS = 3


def episode_of(seed):
    """Returns the episode that a seed stands for, the same in every process."""
    rng = np.random.default_rng(seed)
    return make_episode(rng, 1 + seed % 7, size_px=16, success=seed % 3 == 0, uuid=f"{seed:032x}")


def main():
    """Appends the episodes of seeds from ``argv[2]`` on, sealing all the time, until killed or left by its parent."""
    parent = os.getppid()
    root, first = Path(sys.argv[1]), int(sys.argv[2])
    lock = threading.Lock()
    with EpisodeStore(root, StoreFormat.for_images(16), ReplayConfig(segment_mb=0.02)) as store:

        def deliver(seed):
            while True:
                store.append(episode_of(seed))
                with lock:
                    sys.stdout.write(f"{seed}\n")
                    sys.stdout.flush()
                seed += THREADS

        sys.stdout.write("started\n")
        sys.stdout.flush()
        for number in range(THREADS):
            threading.Thread(target=deliver, args=(first + number,), daemon=True).start()
        while os.getppid() == parent:
            store.seal()


if __name__ == "__main__":
    main()
