"""Records a store as this commit writes it: ``python -m tests.compat.record_store``, once for each format of its files.

The file is named after the format's version and stays in the repository; what is there is never overwritten. For an
earlier format this file runs in a checkout of a commit that wrote it.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from qtopt.replay import EpisodeStore, ReplayConfig
from qtopt.replay.schema import FORMAT_VERSION
from tests.compat import calls
from tests.episodes import make_episode

STORES = Path(__file__).parent / "stores"


def episodes():
    """Returns what is in it: a sealed segment of three, two landed behind them."""
    rng = np.random.default_rng(6)
    return [*calls.episodes(), *(make_episode(rng, steps, size_px=calls.PX) for steps in (5, 1))]


def record(root, to):
    """Writes a store of these episodes."""
    with EpisodeStore(root, calls.FORMAT, ReplayConfig(seal_after_s=0.0)) as store:
        for number, episode in enumerate(episodes()):
            store.append(episode)
            if number == 2:
                store.seal()
    with zipfile.ZipFile(to, "x", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.name != "lock":
                archive.write(path, path.relative_to(root))


if __name__ == "__main__":
    target = STORES / f"format-{FORMAT_VERSION}{''.join(f'-{word}' for word in sys.argv[1:])}.zip"
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        record(Path(room) / "store", target)
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")
