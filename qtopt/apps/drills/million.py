"""One million small episodes in one store, beside stores of fewer: opening, sampling, files, memory.

What is sealed was written by the store's own segment writer and entered as a rebuild enters it; the newest episodes, as
many as one segment takes, went through the landing log and its process was killed (-9): each store is opened as it
was left, and served again after a server over it was killed. The frames' content repeats; UUIDs, positions and policy
versions do not.
"""

import contextlib
import itertools
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from qtopt.apps.benches.measure import rates
from qtopt.apps.drills.episodes import numbered_episode
from qtopt.apps.drills.joining import join_within
from qtopt.apps.drills.report import DrillConfig, finish
from qtopt.apps.drills.served import Served
from qtopt.apps.process import say
from qtopt.replay import EpisodeStore, ReplayConfig, StoreFormat
from qtopt.replay.catalogue import Catalogue, SegmentRow
from qtopt.replay.disk import SEGMENTS
from qtopt.replay.landed import SEGMENT_ROWS
from qtopt.replay.landing import land
from qtopt.replay.landing_log import LANDING, LandingLog
from qtopt.replay.record import Record, encode_episode
from qtopt.replay.segment_files import SHARD, chunk_bytes, segment_name, write_segment
from qtopt.types import JsonValue, new_episode_uuid

_STEPS = 3
_ROWS = _STEPS + 1
_KINDS = 512
_BATCH = 64
_LANDED_AT_MOST = SEGMENT_ROWS // _ROWS - 1
_OPEN_LIMIT_S = {100_000: 2.0, 1_000_000: 5.0}
_FILE_LIMIT = 5000
_BUILD_S, _EPISODE_S = 600.0, 0.05  # patience with building a store, and with each of its episodes
_MEMORY_LIMIT_MIB = 1024.0
_SAME_RATE = 0.9
"""Ratio of the sampling rates from which they count as the same: turns over one store differ by as much. Where reads of
the same files and nothing else lose more, the machine's memory is the limit, and their ratio is the one to keep."""


@dataclass(frozen=True, kw_only=True)
class Config(DrillConfig):
    """Builds stores and measures them.

    Attributes:
        root: where the stores lie; one that is there already is taken as it is.
        sizes: episodes in each store; sampling from the last is compared with sampling from the first.
        image_px: height and width of the frames. Of 16 px those of the smallest store fit into a processor's cache.
        seconds: how long sampling is measured on each side [s].
    """

    root: Path
    image_px: int = 16
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    seconds: float = 20.0


def build(path: Path, episodes: int, image_px: int) -> None:
    """Makes a store of so many episodes, of which the newest are landed, and dies as if killed."""
    fmt = StoreFormat.for_images(image_px)
    records = [encode_episode(numbered_episode(0, number, image_px, _STEPS), fmt) for number in range(_KINDS)]
    EpisodeStore(path, fmt).close()
    landed = min(_LANDED_AT_MOST, episodes // 10)
    with closing(Catalogue(path)) as catalogue:
        done = 0
        while done < episodes - landed:
            count = min(SEGMENT_ROWS // _ROWS, episodes - landed - done)
            _seal(path, fmt, catalogue, _renamed(records, done, count))
            done += count
            say(f"{path.name}: {done} episodes")
        log = LandingLog(path / LANDING, [], math.inf)
        while done < episodes:
            count = min(1000, episodes - done)
            land(catalogue, log, _renamed(records, done, count), done * _ROWS)
            done += count
        os.kill(os.getpid(), signal.SIGKILL)


def _renamed(records: Sequence[Record], done: int, count: int) -> list[Record]:
    """Returns new episodes with the content of ``records``."""
    return [
        replace(
            record,
            row=replace(
                record.row, uuid=new_episode_uuid(), first_position=number * _ROWS, policy_version=number // 100
            ),
        )
        for number, record in zip(range(done, done + count), itertools.cycle(records))
    ]


def _seal(path: Path, fmt: StoreFormat, catalogue: Catalogue, records: Sequence[Record]) -> None:
    first, number = records[0].row.first_position, len(catalogue.segments())
    frame_bytes = len(records) * _ROWS * fmt.frame_pixels
    segment = SegmentRow(number, first, len(records) * _ROWS, len(records), frame_bytes, chunk_bytes(fmt))
    episodes = [replace(record.row, segment=number) for record in records]
    rows = np.concatenate([record.rows for record in records])
    frames = itertools.chain.from_iterable(record.frames for record in records)
    write_segment(path / SEGMENTS / segment_name(number), fmt, segment, rows, frames, episodes)
    catalogue.enter_segment(segment, episodes)


def _opened(path: Path) -> dict[str, JsonValue]:
    """Opens a store in a process of its own; see ``opened``."""
    words = [sys.executable, "-m", "qtopt.apps.drills.opened", str(path)]
    found: dict[str, JsonValue] = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    return found


def _served_again_s(path: Path, image_px: int) -> float:
    """Returns the seconds from the start of a server over a store to its first answer, after one was killed (-9)."""
    root = path.with_name(f"{path.name}-served")
    root.mkdir(exist_ok=True)
    if not (root / "store").exists():
        (root / "store").symlink_to(path.resolve())
    served = Served(root, image_px, ReplayConfig())
    took_s = math.inf
    for _ in range(2):
        process, started = served.start(), time.monotonic()
        connection = served.connect(process)
        took_s = time.monotonic() - started if connection is not None else math.inf
        if connection is not None:
            connection.close()
        process.kill()
        join_within([process])
    return round(took_s, 3)


def _sampling(small: Path, large: Path, config: Config) -> dict[str, JsonValue]:
    """Samples from two stores in turns; returns transitions per second of each."""
    rng = np.random.default_rng(config.seed)
    with EpisodeStore(small, rng=rng) as few, EpisodeStore(large, rng=rng) as many:

        def draw(store: EpisodeStore) -> float:
            return float(len(store.sample_transitions(_BATCH, 1.0).position))

        for store in (few, many):  # each file is opened and checked once
            for _ in range(200):
                draw(store)
        rate, reference = rates(lambda: draw(many), lambda: draw(few), config.seconds)
    return {
        "transitions_per_s_large": round(rate),
        "transitions_per_s_small": round(reference),
        "ratio": round(rate / reference, 3),
    }


def _bare_reads(small: Path, large: Path, config: Config) -> dict[str, JsonValue]:
    """Reads frames at random places of both stores' files, and nothing else; returns the ratio of the rates."""
    chance, frame_bytes = random.Random(config.seed), StoreFormat.for_images(config.image_px).frame_pixels
    with contextlib.ExitStack() as opened:

        def reader(store: Path) -> Callable[[], float]:
            paths = [*store.glob(f"{SEGMENTS}/*/{SHARD}"), *store.glob(f"{LANDING}/*.log")]
            files = [opened.enter_context(path.open("rb")) for path in paths]
            sizes = [max(1, path.stat().st_size // frame_bytes) for path in paths]

            def read() -> float:
                for _ in range(_BATCH):
                    at = chance.randrange(len(files))
                    place = chance.randrange(sizes[at]) * frame_bytes
                    os.pread(files[at].fileno(), frame_bytes, place)
                return float(_BATCH)

            return read

        rate, reference = rates(reader(large), reader(small), config.seconds / 2)
    return {"bare_reads_per_s_large": round(rate), "bare_reads_ratio": round(rate / reference, 3)}


def main(config: Config) -> int:
    """Runs the drill; returns 1 when a limit was missed."""
    started, breaches = time.monotonic(), []
    stores = {size: config.root / f"episodes-{size}" for size in config.sizes}
    found: dict[str, JsonValue] = {"image_px": config.image_px, "steps_per_episode": _STEPS}
    for size, path in stores.items():
        if not path.exists():
            builder = multiprocessing.get_context("spawn").Process(target=build, args=(path, size, config.image_px))
            builder.start()
            join_within([builder], _BUILD_S + size * _EPISODE_S)
            assert builder.exitcode == -signal.SIGKILL
        opened = {**_opened(path), "served_again_s": _served_again_s(path, config.image_px)}
        found[f"store_{size}"] = opened
        if opened["episodes"] != size:
            breaches.append(f"{path}: found {opened['episodes']} episodes, expected {size}; remove it to build it anew")
        limits = {"files": _FILE_LIMIT, "memory_mib": _MEMORY_LIMIT_MIB}
        limits |= dict.fromkeys(("open_s", "served_again_s"), _OPEN_LIMIT_S.get(size, 5.0))
        breaches += [
            f"{size} episodes: {name} is {opened[name]}, expected {limit:g} or less"
            for name, limit in limits.items()
            if float(str(opened[name])) > limit
        ]
    sampling = _sampling(stores[config.sizes[0]], stores[config.sizes[-1]], config)
    bare = _bare_reads(stores[config.sizes[0]], stores[config.sizes[-1]], config)
    expected = min(_SAME_RATE, float(str(bare["bare_reads_ratio"])))
    if float(str(sampling["ratio"])) < expected:
        breaches.append(f"sampling: ratio {sampling['ratio']}, expected {expected} or more")
    return finish("million", {**found, **sampling, **bare}, breaches, seed=config.seed, started=started, to=config.json)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
