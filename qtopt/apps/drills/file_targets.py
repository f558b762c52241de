"""What is read from a disk, as targets of fuzzing: every kind of file that a process opens, damaged."""

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

import robot_bridge
from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.agent.snapshot import load_policy_network
from qtopt.apps import train
from qtopt.apps.drills.log_targets import log_targets
from qtopt.apps.drills.mutate import damage_bytes
from qtopt.apps.drills.targets import IMAGE_PX, Target, make_episode
from qtopt.config import load_yaml, save_yaml
from qtopt.errors import CorruptEpisode
from qtopt.exported import read_manifest
from qtopt.replay import EpisodeStore, LabelRingConfig, StoreFormat, read_format, rebuild_catalogue
from qtopt.replay.catalogue import Catalogue
from qtopt.replay.label_ring import LabelRing
from qtopt.replay.opening import sealed_rows
from qtopt.replay.salvage import read_sound_tables, salvage
from qtopt.replay.segment_files import UNREADABLE, check_shard, read_tables
from qtopt.replay.segments import SegmentFrames
from qtopt.types import Targets
from robot_bridge import spooled
from robot_bridge.cell_file import load_cell_file


def file_targets(rng: np.random.Generator, room: Path) -> list[Target]:
    """Returns a target for each kind of file.

    Args:
        rng: chance of the seeds' content.
        room: an empty directory on a fast disk.
    """
    episode = make_episode(rng, 2)
    cells = tuple(path.read_bytes() for path in sorted((Path(robot_bridge.__file__).parent / "cells").glob("*.toml")))
    save_yaml(train.Config(), room / "seed.yaml")
    learner = Learner(LearnerConfig(), seed=0)
    return [
        _file(
            "spool file", room / "episode.safetensors", (spooled.encode_episode(episode),), spooled.decode_episode, 0.5
        ),
        _file("cell file", room / "cell.toml", cells, load_cell_file, 0.05),
        _file(
            "configuration",
            room / "config.yaml",
            ((room / "seed.yaml").read_bytes(),),
            lambda path: load_yaml(train.Config, path),
            0.002,
        ),
        _file("label file", room / "labels.npz", (_labels(room / "seed.npz"),), _read_labels, 0.1),
        Target("networks", (learner.snapshot(),), load_policy_network, _damage_head, 0.01),
        _manifest(room / "exported"),
        *_store_targets(rng, room),
        *_checkpoint_targets(learner, room / "checkpoint"),
    ]


def _file(name: str, path: Path, seeds: tuple[bytes, ...], read: Callable[[Path], object], weight: float) -> Target:
    def take(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return Target(name, seeds, take, _damage_head, weight)


def _damage_head(rng: random.Random, data: bytes) -> bytes:
    """Damages the first kilobytes, where the structure is, more often than the rest."""
    head = min(len(data), rng.choice((64, 1024, 16384, len(data))))
    return damage_bytes(rng, data[:head]) + data[head:]


def _labels(path: Path) -> bytes:
    ring = LabelRing(LabelRingConfig(capacity=64))
    labels = Targets(np.arange(40, dtype=np.int64), np.full(40, 0.5, np.float32), 3)
    ring.put(labels, np.ones(40, np.bool_), np.zeros(40, np.bool_), 1.0)
    ring.save(path, 2.0)
    return path.read_bytes()


def _read_labels(path: Path) -> None:
    LabelRing(LabelRingConfig(capacity=64)).load(path, 1.0)


def _manifest(directory: Path) -> Target:
    directory.mkdir()
    seed = b'{"format": "qtopt-onnx", "schema": 1, "step": 3, "network": {"kind": "compact"}, "digest": "00"}'
    return _file("exported policy", directory / "policy.json", (seed,), lambda path: read_manifest(path.parent), 0.2)


def _store_targets(rng: np.random.Generator, room: Path) -> list[Target]:
    """Returns targets for the files of a small store with sealed and landed episodes."""
    whole, own = room / "whole", room / "store"
    with EpisodeStore(whole, StoreFormat.for_images(IMAGE_PX)) as store:
        for sealed in (True, False):
            store.append(make_episode(rng, 2))
            if sealed:
                store.seal()
    shutil.copytree(whole, own)
    segment = next((own / "segments").glob("*.zarr"))
    row, _ = read_tables(segment)
    known, known_format = Catalogue(whole, read_only=True), read_format(whole)

    def read_segment(path: Path) -> None:
        with contextlib.suppress(*UNREADABLE, CorruptEpisode):  # as ``rebuild_catalogue`` takes them
            read_sound_tables(path, known_format)
        with contextlib.suppress(*UNREADABLE, CorruptEpisode):
            salvage(path, known_format)
        try:
            _, offsets, _ = sealed_rows(known, segment, row)
            frames = SegmentFrames(segment, row)
        except (FileNotFoundError, ValueError) as error:  # as the shelf takes them
            raise CorruptEpisode(str(error)) from error
        for offset in offsets.tolist():
            frames.read(offset, 100)
        check_shard(segment, row)

    def read_store(path: Path) -> None:
        with EpisodeStore(own, read_only=True) as store:
            store.verify()
            list(store.episodes())

    def rebuild(path: Path) -> None:
        shutil.rmtree(own / "quarantine", ignore_errors=True)
        rebuild_catalogue(own)

    files = [path for path in sorted(segment.rglob("*")) if path.is_file()]
    names = {path.relative_to(segment).as_posix(): path for path in files}
    interesting = [name for name in names if "episode_" in name or name in ("zarr.json", "frames/c/0", "actions/c/0/0")]
    form, database = own / "store.json", own / "catalogue.db"
    catalogue = (database.read_bytes(),)
    return [
        Target("store.json", (form.read_bytes(),), _restoring_take(form, lambda _: read_format(own)), weight=0.3),
        *(_restoring(f"segment: {name}", names[name], read_segment, 0.004) for name in interesting if "/c/" in name),
        _restoring("segment: zarr.json", names["zarr.json"], read_segment, 0.01),
        *log_targets(whole, room / "landed"),
        Target("catalogue", catalogue, _restoring_take(database, read_store), _damage_head, 0.0006),
        Target("catalogue, rebuilt", catalogue, _restoring_take(database, rebuild), _damage_head, 0.0003),
    ]


def _restoring(name: str, path: Path, read: Callable[[Path], object], weight: float) -> Target:
    directory = next(each for each in path.parents if each.suffix == ".zarr")
    return Target(name, (path.read_bytes(),), _restoring_take(path, lambda _: read(directory)), weight=weight)


def _restoring_take(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Returns a function that puts bytes in the place of a file, reads, and puts back what was there."""
    whole = path.read_bytes()

    def take(data: bytes) -> object:
        path.write_bytes(data)
        try:
            return read(path)
        finally:
            for log in path.parent.glob(f"{path.name}-*"):
                log.unlink()
            path.write_bytes(whole)

    return take


def _checkpoint_targets(learner: Learner, directory: Path) -> list[Target]:
    directory.mkdir()
    learner.save(directory)
    return [
        Target(
            f"checkpoint: {path.name}",
            (path.read_bytes(),),
            _restoring_take(path, lambda _: Learner.restore(directory)),
            _damage_head,
            0.0002,
        )
        for path in sorted(directory.iterdir())
        if path.name.startswith("learner")
    ]
