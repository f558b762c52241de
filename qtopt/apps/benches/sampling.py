"""Random transitions per second out of sealed segments: the store's own path beside zarr's."""

import tempfile
from pathlib import Path

import numpy as np
import zarr

from qtopt.apps.benches.episodes import IMAGE_PX, STEPS, make_episode
from qtopt.apps.benches.measure import line, rates
from qtopt.replay import EpisodeStore, StoreFormat
from qtopt.types import JsonValue

_EPISODES = 400
_BATCH = 256
_COLUMNS = ("rewards", "gripper_closed", "height_to_bottom", "actions")


def measure(seconds: float, seed: int) -> dict[str, JsonValue]:
    """Measures batches of 256 transitions drawn uniformly from 400 episodes of 72 px in sealed segments."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(dir=".") as directory:
        root = Path(directory) / "store"
        with EpisodeStore(root, StoreFormat.for_images(IMAGE_PX), rng=rng) as store:
            for _ in range(_EPISODES):
                store.append(make_episode(rng))
            store.seal()
            segment = next((root / "segments").glob("*.zarr"))
            frames, *columns = (zarr.open_array(segment / name, mode="r") for name in ("frames", *_COLUMNS))
            frame_bytes = IMAGE_PX * IMAGE_PX * 3

            def ours() -> float:
                return float(len(store.sample_transitions(_BATCH, 10.0)))

            def by_zarr() -> float:
                rows = rng.integers(0, _EPISODES * (STEPS + 1) - 1, _BATCH)
                for row in rows.tolist():
                    np.asarray(frames[(row + 1) * frame_bytes : (row + 2) * frame_bytes])
                for column in columns:
                    np.asarray(column[:])[rows]
                return float(_BATCH)

            per_s, reference = rates(ours, by_zarr, seconds)
    return line(
        "sample",
        per_s,
        reference,
        "transitions/s",
        f"sample_transitions({_BATCH}): index in memory, pread, checksums",
        f"zarr {zarr.__version__} reading the same rows of the same segment chunk by chunk, columns whole",
        batch=_BATCH,
        image_px=IMAGE_PX,
    )
